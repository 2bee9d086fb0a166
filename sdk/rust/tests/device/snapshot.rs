use posduif_sdk::{Device, Error};
use serde_json::json;

use crate::server::{
    Answer, BOB, INCOMING, INSTRUCTIONS, ME, OUTGOING, Server, bob, column, contents, instructions, message,
    tasks,
};

#[tokio::test]
async fn a_snapshot_of_many_pages_replaces_everything_at_once() {
    let server = Server::start().await;
    let task = json!([{"table": "public.tasks", "op": "upsert", "row": {"id": "1", "title": "old"}}]);
    let device = server.device_with(json!([message(1, BOB, ME, "old")]), task).await;
    server.refuse(INCOMING, 410, "CURSOR_EXPIRED");
    server.page(json!({"users": [{"id": BOB, "username": "bob"}], "cursor": "s1", "lsn": "0/200", "has_more": true, "snapshot": true}));
    server.page(json!({"messages": [message(2, BOB, ME, "stale")], "cursor": "s2", "lsn": "0/200", "has_more": true, "snapshot": true}));
    server.answer(INCOMING, Answer::Cut);
    assert!(matches!(device.sync().await, Err(Error::Offline(_))));
    assert_eq!(contents(&device), ["old"]);
    assert_eq!(server.cursors(), ["c1", "start", "s1", "s2"]);
    drop(device);

    let device = Device::open(server.path()).unwrap();
    server.page(json!({"messages": [message(2, BOB, ME, "replayed")], "cursor": "s3", "lsn": "0/210", "has_more": false, "snapshot": true}));
    let summary = device.sync().await.unwrap();
    assert!(summary.snapshot);
    assert_eq!(server.cursors(), ["s2", "s3"]);
    assert_eq!(contents(&device), ["replayed"]);
    assert_eq!(column(&device, "SELECT title FROM tasks"), Vec::<String>::new());
    let users: Vec<_> = device.users().unwrap().into_iter().map(|user| user.username).collect();
    assert_eq!(users, ["bob"]);
    assert_eq!(device.find_user("bob").unwrap().unwrap().id, bob());
}

#[tokio::test]
async fn an_expired_cursor_drops_the_staged_pages() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    server.page(json!({"messages": [message(1, BOB, ME, "of a lost history")], "cursor": "c2", "lsn": "0/110", "has_more": true}));
    server.refuse(INCOMING, 410, "CURSOR_EXPIRED");
    server.page(json!({"messages": [message(2, BOB, ME, "true")], "cursor": "s1", "lsn": "0/90", "has_more": false, "snapshot": true}));
    device.sync().await.unwrap();
    assert_eq!(contents(&device), ["true"]);
    assert_eq!(server.cursors(), ["c1", "c2", "start", "s1"]);
}

#[tokio::test]
async fn what_was_sent_into_a_lost_history_is_sent_again_into_the_new_one() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let id = device.send_message(bob(), "hello").unwrap();
    server.answer(OUTGOING, Answer::Json(200, json!({"lsn": "0/200"})));
    device.sync().await.unwrap();
    server.take_requests();

    // PostgreSQL was restored to a time before the upload; its new history has reached the old receipt.
    server.refuse(INCOMING, 410, "CURSOR_EXPIRED");
    server.answer(OUTGOING, Answer::Json(200, json!({"lsn": "0/900"})));
    server.page(json!({"cursor": "s1", "lsn": "0/800", "has_more": false, "snapshot": true}));
    device.sync().await.unwrap();
    let uploads: Vec<_> = server.take_requests().into_iter().filter(|r| r.route == OUTGOING).collect();
    assert_eq!((uploads.len(), &uploads[0].body["messages"][0]["id"]), (1, &json!(id)));
    assert_eq!(contents(&device), ["hello"]);
}

#[tokio::test]
async fn unsent_and_unsettled_rows_survive_a_snapshot() {
    let server = Server::start().await;
    let device = server.device_with(json!([message(1, ME, BOB, "stored")]), json!([])).await;
    device.connection().execute("UPDATE messages SET content = 'edited'", []).unwrap();
    device.send_message(bob(), "unsent").unwrap();
    server.answer(OUTGOING, Answer::Raw(500, "", String::new()));
    server.refuse(INCOMING, 410, "CURSOR_EXPIRED");
    server.page(json!({"messages": [message(1, ME, BOB, "stored")], "cursor": "s1", "lsn": "0/210", "has_more": false, "snapshot": true}));
    assert!(matches!(device.sync().await, Err(Error::Retry { .. })));
    assert_eq!(column(&device, "SELECT content FROM messages ORDER BY content"), ["edited", "unsent"]);
    assert_eq!(device.pending_count().unwrap(), 2);
    device.sync().await.unwrap();
    assert_eq!(device.pending_count().unwrap(), 0);
    assert_eq!(column(&device, "SELECT content FROM messages ORDER BY content"), ["edited", "unsent"]);
}

#[tokio::test]
async fn new_rules_bring_new_tables_and_columns_before_the_snapshot() {
    let server = Server::start().await;
    let task =
        json!([{"table": "public.tasks", "op": "upsert", "row": {"id": 1, "title": "t", "weight": 2}}]);
    let device = server.device_with(json!([]), task).await;
    device.connection().execute("CREATE INDEX by_weight ON tasks (weight)", []).unwrap();
    let mut changed = tasks();
    changed["columns"].as_array_mut().unwrap().retain(|column| column["name"] != "weight");
    changed["columns"].as_array_mut().unwrap().push(json!({"name": "done", "type": "INTEGER"}));
    let mut rules = instructions("r2", changed);
    rules["tables"].as_array_mut().unwrap().push(json!({"name": "public.notes", "local_name": "notes",
        "primary_key": ["id"], "columns": [{"name": "id", "type": "TEXT"}]}));
    server.answer(INSTRUCTIONS, Answer::Json(200, rules));
    server.refuse(INCOMING, 410, "CURSOR_EXPIRED");
    server.page(json!({"changes": [
        {"table": "public.tasks", "op": "upsert", "row": {"id": 1, "title": "t", "done": true}},
        {"table": "public.notes", "op": "upsert", "row": {"id": "n"}}],
        "cursor": "s1", "lsn": "0/210", "has_more": false, "snapshot": true}));
    device.sync().await.unwrap();
    assert_eq!(column(&device, "SELECT title || done || ifnull(weight, '-') FROM tasks"), ["t1-"]);
    assert_eq!(column(&device, "SELECT id FROM notes"), ["n"]);
    let error = device.connection().execute("UPDATE tasks SET done = 0", []).unwrap_err();
    assert!(error.to_string().contains("may not change"), "{error}");
}

#[tokio::test]
async fn an_unknown_table_starts_over_under_new_rules_and_is_ignored_under_the_old_ones() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let change = json!([{"table": "public.notes", "op": "upsert", "row": {"id": "n2"}}]);
    let page = |cursor| json!({"changes": change, "cursor": cursor, "lsn": "0/110", "has_more": false});
    server.page(page("c2"));
    device.sync().await.unwrap();
    assert_eq!(server.cursors()[0], "c1");

    let mut rules = instructions("r2", tasks());
    rules["tables"].as_array_mut().unwrap().push(json!({"name": "public.notes", "local_name": "notes",
        "primary_key": ["id"], "columns": [{"name": "id", "type": "TEXT"}]}));
    server.answer(INSTRUCTIONS, Answer::Json(200, rules));
    server.page(page("c3"));
    let all = json!([{"table": "public.notes", "op": "upsert", "row": {"id": "n1"}},
                     {"table": "public.notes", "op": "upsert", "row": {"id": "n2"}}]);
    server.page(json!({"changes": all, "cursor": "s1", "lsn": "0/120", "has_more": false, "snapshot": true}));
    device.sync().await.unwrap();
    assert_eq!(column(&device, "SELECT id FROM notes ORDER BY id"), ["n1", "n2"]);
    assert!(server.cursors().contains(&"start".to_owned()));
}

#[tokio::test]
async fn a_table_that_is_withdrawn_leaves_and_its_unsent_rows_are_listed() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    device.connection().execute("INSERT INTO tasks (id, title) VALUES (5, 'unsent')", []).unwrap();
    server.answer(OUTGOING, Answer::Raw(500, "", String::new()));
    server.answer(INSTRUCTIONS, Answer::Json(200, instructions("r2", json!(null))));
    server.refuse(INCOMING, 410, "CURSOR_EXPIRED");
    server.page(json!({"cursor": "s1", "lsn": "0/210", "has_more": false, "snapshot": true}));
    let failed = device.sync().await;
    assert!(matches!(failed, Err(Error::Retry { .. })), "{failed:?}");
    assert!(device.connection().execute("DELETE FROM tasks", []).is_err());
    let [rejected] = <[_; 1]>::try_from(device.rejected().unwrap()).unwrap();
    assert_eq!((rejected.code.as_str(), rejected.table.as_str()), ("RULES_CHANGED", "public.tasks"));
    device.sync().await.unwrap();
}

#[tokio::test]
async fn new_columns_come_though_the_instructions_failed_after_the_cursor_expired() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    server.refuse(INCOMING, 410, "CURSOR_EXPIRED");
    server.answer(INSTRUCTIONS, Answer::Cut);
    assert!(matches!(device.sync().await, Err(Error::Offline(_))));
    drop(device);

    let device = Device::open(server.path()).unwrap();
    let mut changed = tasks();
    changed["columns"].as_array_mut().unwrap().push(json!({"name": "extra", "type": "TEXT"}));
    server.answer(INSTRUCTIONS, Answer::Json(200, instructions("r2", changed)));
    server
        .page(json!({"changes": [{"table": "public.tasks", "op": "upsert", "row": {"id": 1, "extra": "E"}}],
                       "cursor": "s1", "lsn": "0/300", "has_more": false, "snapshot": true}));
    device.sync().await.unwrap();
    assert_eq!(column(&device, "SELECT extra FROM tasks"), ["E"]);
    server.take_requests();
    device.sync().await.unwrap();
    assert!(server.take_requests().iter().all(|request| request.route != INSTRUCTIONS));
}

#[tokio::test]
async fn a_table_that_appears_under_the_same_rules_starts_over_also_after_a_death() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let change = |id| json!([{"table": "public.notes", "op": "upsert", "row": {"id": id}}]);
    server.page(json!({"changes": change("n2"), "cursor": "c2", "lsn": "0/110", "has_more": false}));
    let mut rules = instructions("r1", tasks());
    rules["tables"].as_array_mut().unwrap().push(json!({"name": "public.notes", "local_name": "notes",
        "primary_key": ["id"], "columns": [{"name": "id", "type": "TEXT"}]}));
    server.answer(INSTRUCTIONS, Answer::Json(200, rules));
    server.answer(INCOMING, Answer::Cut);
    assert!(device.sync().await.is_err());
    drop(device);

    let device = Device::open(server.path()).unwrap();
    server.page(
        json!({"changes": change("n1"), "cursor": "s1", "lsn": "0/120", "has_more": false, "snapshot": true}),
    );
    device.sync().await.unwrap();
    assert_eq!(server.cursors(), ["c1", "start", "start", "s1"]);
    assert_eq!(column(&device, "SELECT id FROM notes"), ["n1"]);
}
