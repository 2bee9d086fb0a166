use posduif_sdk::Device;
use serde_json::json;

use crate::server::{BOB, ME, OUTGOING, Server, column, message};

async fn device(server: &Server) -> Device {
    let messages = json!([message(1, BOB, ME, "received"), message(2, ME, BOB, "mine")]);
    let task = json!([{"table": "public.tasks", "op": "upsert",
        "row": {"id": "9007199254740993", "owner_id": ME, "title": "t", "weight": 0.1, "photo": "AP8="}}]);
    server.device_with(messages, task).await
}

#[tokio::test]
async fn what_the_rules_do_not_grant_is_refused_where_it_is_written() {
    let server = Server::start().await;
    let device = device(&server).await;
    for (sql, why) in [
        ("INSERT INTO users (id) VALUES ('u')", "read-only"),
        ("UPDATE users SET username = 'x'", "read-only"),
        ("DELETE FROM users", "read-only"),
        ("DELETE FROM messages", "not deleted"),
        ("INSERT INTO messages (id, sender_id) VALUES ('m', 'someone')", "own user"),
        ("UPDATE messages SET content = 'x' WHERE content = 'received'", "sender only"),
        ("UPDATE messages SET recipient_id = 'x' WHERE content = 'mine'", "may not change"),
        ("UPDATE messages SET status = 'read' WHERE content = 'mine'", "recipient only"),
        ("UPDATE messages SET read_at = 'x' WHERE content = 'received'", "recipient only"),
        ("UPDATE tasks SET owner_id = 'x'", "may not change"),
        ("UPDATE tasks SET id = 2", "may not change"),
        ("INSERT INTO tasks (id, title) VALUES (9007199254740993, 'x')", "UNIQUE"),
    ] {
        let error = device.connection().execute(sql, []).unwrap_err();
        assert!(error.to_string().contains(why), "{sql}: {error}");
    }
    assert_eq!(device.pending_count().unwrap(), 0);
    device.connection().execute("UPDATE tasks SET title = title", []).unwrap();
    assert_eq!(device.pending_count().unwrap(), 0);
}

#[tokio::test]
async fn a_row_of_an_operators_table_travels_up_exactly() {
    let server = Server::start().await;
    let device = device(&server).await;
    device
        .connection()
        .execute_batch(
            "UPDATE tasks SET title = 'it''s', weight = 1.0 / 3;
             INSERT INTO tasks (id, title, weight, photo) VALUES (5, 'a', 1, x'00'), (6, 'b', NULL, NULL);
             DELETE FROM tasks WHERE id = 6;",
        )
        .unwrap();
    device.sync().await.unwrap();
    let upload = server.take_requests().remove(0);
    let upsert = |key: i64, title: &str, weight: f64, photo: &str| {
        json!({"table": "public.tasks", "op": "upsert", "key": {"id": key},
               "row": {"id": key, "title": title, "weight": weight, "photo": photo}})
    };
    assert_eq!(
        upload.body["changes"],
        json!([
            upsert(9_007_199_254_740_993, "it's", 1.0 / 3.0, "AP8="),
            upsert(5, "a", 1.0, "AA=="),
            {"table": "public.tasks", "op": "delete", "key": {"id": 6}},
        ])
    );
}

#[tokio::test]
async fn replacing_a_row_saves_the_servers_version_of_it() {
    let server = Server::start().await;
    let device = device(&server).await;
    let replace = "INSERT OR REPLACE INTO tasks (id, title) VALUES (9007199254740993, 'replaced')";
    device.connection().execute(replace, []).unwrap();
    device.connection().execute("INSERT OR IGNORE INTO tasks (id, title) VALUES (7, 'new')", []).unwrap();
    let failed =
        |id: &str| json!({"table": "public.tasks", "key": {"id": id}, "code": "FORBIDDEN", "error": "no"});
    let answer = json!({"failed": [failed("9007199254740993"), failed("7")], "lsn": "0/200"});
    server.answer(OUTGOING, crate::server::Answer::Json(200, answer));
    assert_eq!(device.sync().await.unwrap().rejected, 2);
    let rows = column(&device, "SELECT id || title || weight || hex(photo) || owner_id FROM tasks");
    assert_eq!(rows, [format!("9007199254740993t0.100FF{ME}")]);
}

#[tokio::test]
async fn a_locally_deleted_row_stays_away_until_the_server_has_decided() {
    let server = Server::start().await;
    let device = device(&server).await;
    device.connection().execute("DELETE FROM tasks", []).unwrap();
    let row = json!({"id": "9007199254740993", "title": "changed meanwhile"});
    let change = json!([{"table": "public.tasks", "op": "upsert", "row": row}]);
    server.page(json!({"changes": change, "cursor": "c2", "lsn": "0/1F0", "has_more": false}));
    device.sync().await.unwrap();
    assert_eq!(column(&device, "SELECT title FROM tasks"), Vec::<String>::new());
    let gone =
        json!([{"table": "public.tasks", "op": "delete", "key": {"id": "9007199254740993"}, "own": true}]);
    server.page(json!({"changes": gone, "cursor": "c3", "lsn": "0/200", "has_more": false}));
    device.sync().await.unwrap();
    assert_eq!(column(&device, "SELECT title FROM tasks"), Vec::<String>::new());
    assert_eq!(column(&device, "SELECT op FROM posduif_outbox"), Vec::<String>::new());
}
