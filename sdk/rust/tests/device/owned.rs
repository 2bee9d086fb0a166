use posduif_sdk::{Device, rusqlite::Connection};
use serde_json::{Value, json};

use crate::server::{Answer, BOB, INSTRUCTIONS, ME, OUTGOING, Server, column, instructions, tasks};

const OLD: &str = "2026-01-15T10:00:00.123456Z";

/// A table of notes that everybody sees and each user writes, and own user rows that may be renamed.
fn rules() -> Value {
    let mut rules = instructions("r1", tasks());
    let text = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({"name": name, "type": "TEXT"})).collect()
    };
    rules["tables"][1]["columns"].as_array_mut().unwrap().extend(text(&["updated_at"]));
    rules["tables"][1]["write"] = json!({"columns": ["username"], "owner": "id", "version": "updated_at"});
    rules["tables"].as_array_mut().unwrap().push(json!({"name": "public.notes", "local_name": "notes",
        "primary_key": ["id"], "columns": text(&["id", "owner_id", "title", "updated_at"]),
        "write": {"columns": ["title"], "owner": "owner_id", "version": "updated_at"}}));
    rules
}

fn note(id: &str, owner: Option<&str>) -> Value {
    json!({"table": "public.notes", "op": "upsert",
           "row": {"id": id, "owner_id": owner, "title": "from the server", "updated_at": OLD}})
}

async fn device(server: &Server) -> Device {
    server.answer(INSTRUCTIONS, Answer::Json(200, rules()));
    server
        .device_with(
            json!([]),
            json!([note("mine", Some(ME)), note("his", Some(BOB)), note("nobodys", None)]),
        )
        .await
}

/// The changes of the next upload.
async fn uploaded(server: &Server, device: &Device) -> Vec<Value> {
    server.take_requests();
    device.sync().await.unwrap();
    let upload = server.take_requests().into_iter().find(|request| request.route == OUTGOING).unwrap();
    upload.body["changes"].as_array().unwrap().clone()
}

fn is_now(version: &Value) -> bool {
    let at: chrono::DateTime<chrono::Utc> = version.as_str().unwrap().parse().unwrap();
    version.as_str().unwrap().ends_with('Z') && (chrono::Utc::now() - at).num_minutes().abs() < 2
}

#[tokio::test]
async fn a_row_that_is_inserted_gets_its_owner_and_its_version() {
    let server = Server::start().await;
    let device = device(&server).await;
    let sql = "INSERT INTO notes (id, title) VALUES ('a', 'left out');
               INSERT INTO notes VALUES ('b', NULL, 'null', NULL);
               INSERT INTO notes VALUES ('c', '{me}', 'own words', '2026-02-02T00:00:00Z');
               INSERT INTO notes (id, title, updated_at) VALUES ('d', 'own version', '2026-03-03T00:00:00Z');";
    device.connection().execute_batch(&sql.replace("{me}", ME)).unwrap();
    assert_eq!(device.pending_count().unwrap(), 4, "one entry each");
    assert_eq!(column(&device, "SELECT owner_id FROM notes WHERE length(id) = 1"), [ME; 4]);
    let changes = uploaded(&server, &device).await;
    let titles: Vec<_> = changes.iter().map(|change| change["row"]["title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["left out", "null", "own words", "own version"]);
    assert!(is_now(&changes[0]["row"]["updated_at"]) && is_now(&changes[1]["row"]["updated_at"]));
    assert_eq!(changes[2]["row"]["updated_at"], "2026-02-02T00:00:00Z");
    assert_eq!(changes[3]["row"]["updated_at"], "2026-03-03T00:00:00Z");
    for change in &changes {
        assert_eq!(
            (&change["op"], change["row"].get("owner_id")),
            (&json!("upsert"), None),
            "the server knows whose"
        );
    }
}

#[tokio::test]
async fn a_change_is_stamped_unless_the_application_did_and_a_delete_says_when() {
    let server = Server::start().await;
    let device = device(&server).await;
    let run = |sql: &str| device.connection().execute(sql, []).unwrap();
    assert_eq!(run("UPDATE notes SET title = 'stamped' WHERE id = 'mine'"), 1);
    let changes = uploaded(&server, &device).await;
    assert_eq!((changes.len(), &changes[0]["row"]["title"]), (1, &json!("stamped")));
    assert!(is_now(&changes[0]["row"]["updated_at"]));

    run("UPDATE notes SET title = 'by an ORM', updated_at = '2026-05-05T00:00:00Z' WHERE id = 'mine'");
    let changes = uploaded(&server, &device).await;
    assert_eq!((changes.len(), &changes[0]["row"]["updated_at"]), (1, &json!("2026-05-05T00:00:00Z")));

    run("UPDATE notes SET updated_at = '2026-06-06T00:00:00Z' WHERE id = 'mine'");
    assert_eq!(uploaded(&server, &device).await[0]["row"]["updated_at"], "2026-06-06T00:00:00Z");
    run("UPDATE notes SET updated_at = NULL WHERE id = 'mine'");
    assert!(is_now(&uploaded(&server, &device).await[0]["row"]["updated_at"]));
    run("UPDATE notes SET title = title WHERE id = 'mine'");
    assert_eq!(device.pending_count().unwrap(), 0, "nothing changed");

    run("DELETE FROM notes WHERE id = 'mine'");
    let changes = uploaded(&server, &device).await;
    assert_eq!(
        (changes.len(), &changes[0]["op"], &changes[0]["key"]),
        (1, &json!("delete"), &json!({"id": "mine"}))
    );
    assert!(is_now(&changes[0]["row"]["updated_at"]));
    assert_eq!(changes[0]["row"].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn a_write_is_later_than_what_it_replaces_whatever_the_clock_says() {
    let server = Server::start().await;
    server.answer(INSTRUCTIONS, Answer::Json(200, rules()));
    let mut ahead = note("mine", Some(ME));
    ahead["row"]["updated_at"] = json!("2125-01-15T10:00:00.1236Z");
    let device = server.device_with(json!([]), json!([ahead])).await;
    let versions =
        || column(&device, "SELECT json_extract(row, '$.updated_at') FROM posduif_outbox ORDER BY seq");
    device
        .connection()
        .execute_batch(
            "UPDATE notes SET title = 'a';
             UPDATE notes SET title = 'b';
             INSERT OR REPLACE INTO notes (id, title) VALUES ('mine', 'c');
             INSERT OR REPLACE INTO notes (id, title) VALUES ('mine', 'd');
             DELETE FROM notes;
             INSERT INTO notes (id, title) VALUES ('mine', 'e');",
        )
        .unwrap();
    let expected = ["125", "126", "127", "128", "129", "130"].map(|ms| format!("2125-01-15T10:00:00.{ms}Z"));
    assert_eq!(versions(), expected);
    let entries = "SELECT op || coalesce(json_extract(row, '$.title'), '') FROM posduif_outbox ORDER BY seq";
    assert_eq!(column(&device, entries), ["puta", "putb", "putc", "putd", "delete", "pute"]);

    // Many writes within one millisecond are as many versions.
    let many = "INSERT INTO notes (id, title) VALUES ('new', 0);".to_owned()
        + &"UPDATE notes SET title = title + 1 WHERE id = 'new';".repeat(50);
    device.connection().execute_batch(&many).unwrap();
    let versions = versions().split_off(6);
    assert_eq!(versions.len(), 51);
    assert!(versions.is_sorted_by(|one, other| one < other), "{versions:?}");
}

#[tokio::test]
async fn rows_of_others_are_refused_where_they_are_written_whatever_the_statement() {
    let server = Server::start().await;
    let device = device(&server).await;
    let orm = Connection::open(server.path()).unwrap();
    orm.pragma_update(None, "recursive_triggers", true).unwrap();
    for sql in [
        "UPDATE notes SET title = 'x' WHERE id = 'his'",
        "UPDATE notes SET title = 'x'",
        "UPDATE notes SET title = 'x' WHERE id = 'nobodys'",
        "UPDATE notes SET owner_id = '{me}' WHERE id = 'his'",
        "UPDATE notes SET owner_id = '{me}' WHERE id = 'nobodys'",
        "UPDATE notes SET owner_id = '{me}', updated_at = '2026-02-02T00:00:00Z' WHERE id = 'nobodys'",
        "DELETE FROM notes WHERE id = 'his'",
        "DELETE FROM notes WHERE id = 'nobodys'",
        "INSERT INTO notes (id, owner_id) VALUES ('new', '{bob}')",
        "INSERT OR REPLACE INTO notes (id, title) VALUES ('his', 'x')",
        "REPLACE INTO notes (id, owner_id, title) VALUES ('nobodys', '{me}', 'x')",
        "INSERT INTO notes (id, title) VALUES ('his', 'x') ON CONFLICT (id) DO UPDATE SET title = excluded.title",
        "UPDATE OR IGNORE notes SET title = 'x' WHERE id = 'his'",
        "UPDATE users SET username = 'x' WHERE id = '{bob}'",
    ] {
        let sql = sql.replace("{me}", ME).replace("{bob}", BOB);
        for conn in [&*device.connection(), &orm] {
            let error = conn.execute(&sql, []).unwrap_err();
            let refused =
                ["of another user", "may not change"].iter().any(|why| error.to_string().contains(why));
            assert!(refused, "{sql}: {error}");
        }
    }
    for (sql, why) in [
        ("UPDATE notes SET owner_id = '{bob}' WHERE id = 'mine'", "may not change"),
        ("UPDATE notes SET owner_id = NULL WHERE id = 'mine'", "may not change"),
        ("INSERT INTO users (id, username) VALUES ('u', 'x')", "not made"),
        ("DELETE FROM users WHERE id = '{me}'", "not deleted"),
        ("UPDATE users SET user_type = 'web' WHERE id = '{me}'", "may not change"),
    ] {
        let sql = sql.replace("{me}", ME).replace("{bob}", BOB);
        let error = device.connection().execute(&sql, []).unwrap_err();
        assert!(error.to_string().contains(why), "{sql}: {error}");
    }
    assert_eq!(device.pending_count().unwrap(), 0);
    let base = "SELECT id FROM posduif_base_notes UNION ALL SELECT id FROM posduif_base_users";
    assert_eq!(column(&device, base), Vec::<String>::new());
}

#[tokio::test]
async fn triggers_that_fire_themselves_capture_each_write_once() {
    let server = Server::start().await;
    let device = device(&server).await;
    let orm = Connection::open(server.path()).unwrap();
    orm.pragma_update(None, "recursive_triggers", true).unwrap();
    orm.execute_batch(
        "UPDATE notes SET title = 'one' WHERE id = 'mine';
         INSERT INTO notes (id, title) VALUES ('new', 'two');
         INSERT INTO notes (id, title) VALUES ('new', 'x') ON CONFLICT (id) DO UPDATE SET title = 'three';",
    )
    .unwrap();
    let entries = "SELECT json_extract(row, '$.title') FROM posduif_outbox ORDER BY seq";
    assert_eq!(column(&device, entries), ["one", "two", "three"]);
}

#[tokio::test]
async fn the_own_user_is_renamed_in_users_with_its_version() {
    let server = Server::start().await;
    let device = device(&server).await;
    device.connection().execute("UPDATE users SET username = 'joseph' WHERE id = ?1", [ME]).unwrap();
    server.take_requests();
    device.sync().await.unwrap();
    let upload = server.take_requests().into_iter().find(|request| request.route == OUTGOING).unwrap();
    let user = upload.body["users"][0].as_object().unwrap();
    assert_eq!((&user["id"], &user["username"], user.len()), (&json!(ME), &json!("joseph"), 3));
    assert!(is_now(&user["updated_at"]));
}

#[tokio::test]
async fn an_edited_message_is_later_than_it_was() {
    let server = Server::start().await;
    let device = device(&server).await;
    device.send_message(crate::server::bob(), "hello").unwrap();
    device.connection().execute("UPDATE messages SET content = 'hello, Bob'", []).unwrap();
    let null = "INSERT INTO messages (id, recipient_id, content, updated_at) VALUES ('m', ?1, 'x', NULL)";
    device.connection().execute(null, [BOB]).unwrap();
    let sql = "SELECT json_extract(row, '$.updated_at') FROM posduif_outbox ORDER BY seq";
    let versions = column(&device, sql);
    assert_eq!(versions.len(), 3);
    assert!(versions[0] < versions[1], "{versions:?}");
    assert!(is_now(&json!(versions[1])) && is_now(&json!(versions[2])));
    assert_eq!(
        column(&device, "SELECT updated_at FROM messages WHERE content = 'hello, Bob'"),
        [versions[1].clone()]
    );
}

#[tokio::test]
async fn a_lost_write_and_a_lost_delete_are_listed_and_the_winner_shows() {
    let server = Server::start().await;
    let device = device(&server).await;
    device
        .connection()
        .execute_batch(
            "UPDATE notes SET title = 'too late' WHERE id = 'mine';
             INSERT INTO notes (id, title) VALUES ('gone', 'deleted there');",
        )
        .unwrap();
    let mut winner = note("mine", Some(ME));
    winner["row"]["title"] = json!("winner");
    server.answer(
        OUTGOING,
        Answer::Json(
            200,
            json!({"synced_count": 2, "failed_count": 0, "lsn": "0/200", "conflicts": [
            {"table": "public.notes", "key": {"id": "mine"}, "row": winner["row"]},
            {"table": "public.notes", "key": {"id": "gone"}, "row": null}]}),
        ),
    );
    server.page(json!({"changes": [winner], "cursor": "c2", "lsn": "0/200", "has_more": false}));
    let summary = device.sync().await.unwrap();
    assert_eq!((summary.uploaded, summary.superseded, summary.rejected), (2, 2, 0));
    assert_eq!(
        column(
            &device,
            "SELECT id || ' ' || title FROM notes WHERE owner_id = (SELECT value FROM posduif_state WHERE name = 'user_id')"
        ),
        ["mine winner"]
    );
    let listed = device.rejected().unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|write| write.code == "CONFLICT"));
    assert!(listed[0].row.as_ref().unwrap().contains("too late"));
    assert_eq!(column(&device, "SELECT op FROM posduif_outbox"), Vec::<String>::new());
}

#[tokio::test]
async fn a_write_that_the_server_forbids_makes_the_device_ask_what_is_granted() {
    let server = Server::start().await;
    let device = device(&server).await;
    device.connection().execute("UPDATE notes SET title = 'x' WHERE id = 'mine'", []).unwrap();
    let failed = json!([{"table": "public.notes", "key": {"id": "mine"}, "code": "FORBIDDEN", "error": "nothing is granted"}]);
    server.answer(OUTGOING, Answer::Json(200, json!({"failed": failed, "lsn": "0/200"})));
    device.sync().await.unwrap();
    let mut withdrawn = rules();
    withdrawn["tables"][3]["write"] = json!(null);
    server.answer(INSTRUCTIONS, Answer::Json(200, withdrawn));
    assert!(!device.sync().await.unwrap().snapshot);
    assert_eq!(column(&device, "SELECT title FROM notes WHERE id = 'mine'"), ["from the server"]);
    let error =
        device.connection().execute("UPDATE notes SET title = 'y' WHERE id = 'mine'", []).unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
}
