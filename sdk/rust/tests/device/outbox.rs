use posduif_sdk::{Device, Error, Uuid};
use serde_json::json;

use crate::server::{Answer, BOB, INCOMING, ME, OUTGOING, Server, bob, column, contents, message};

fn state(device: &Device) -> Vec<String> {
    column(device, "SELECT op || ' ' || state FROM posduif_outbox ORDER BY seq")
}

#[tokio::test]
async fn a_message_waits_offline_and_is_uploaded_by_the_next_sync() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let id = device.send_message(bob(), "hello").unwrap();
    assert_eq!(device.pending_count().unwrap(), 1);
    let [shown] = <[_; 1]>::try_from(device.messages(bob()).unwrap()).unwrap();
    assert!(shown.unsent);
    server.answer(OUTGOING, Answer::Cut);
    assert!(matches!(device.sync().await, Err(Error::Offline(_))));
    assert_eq!((device.pending_count().unwrap(), contents(&device)), (1, vec!["hello".to_owned()]));
    drop(device);

    let device = Device::open(server.path()).unwrap();
    server.take_requests();
    assert_eq!(device.sync().await.unwrap().uploaded, 1);
    let upload = server.take_requests().remove(0);
    assert_eq!(upload.route, OUTGOING);
    let item = &upload.body["messages"][0];
    assert_eq!((&item["id"], &item["recipient_id"]), (&json!(id), &json!(BOB)));
    assert_eq!((&item["content"], item["created_at"].is_string()), (&json!("hello"), true));
    assert_eq!(item["created_at"], item["updated_at"]);
    assert_eq!(upload.body["reads"], json!([]));
    assert_eq!((device.pending_count().unwrap(), state(&device)), (0, vec!["put sent".to_owned()]));
    assert!(!device.messages(bob()).unwrap()[0].unsent);
}

#[tokio::test]
async fn the_own_row_of_an_upload_whose_answer_was_lost_does_not_flicker_over_a_newer_write() {
    let server = Server::start().await;
    let version = |title: &str| json!([{"table": "public.tasks", "op": "upsert", "own": true, "row": {"id": 1, "title": title}}]);
    let device = server.device_with(json!([]), version("zero")).await;
    let edit = |title: &str| {
        device.connection().execute("UPDATE tasks SET title = ?1", [title]).unwrap();
    };
    let titles = || column(&device, "SELECT title FROM tasks");
    edit("one");
    server.answer(OUTGOING, Answer::Cut);
    assert!(device.sync().await.is_err());
    edit("two");
    server.page(json!({"changes": version("one"), "cursor": "c2", "lsn": "0/180", "has_more": false}));
    device.sync().await.unwrap();
    assert_eq!((titles(), state(&device)), (vec!["two".to_owned()], vec!["put sent".to_owned(); 2]));

    server.page(
        json!({"changes": version("two, as stored"), "cursor": "c3", "lsn": "0/200", "has_more": false}),
    );
    device.sync().await.unwrap();
    assert_eq!((titles(), state(&device)), (vec!["two, as stored".to_owned()], vec![]));
    assert_eq!(column(&device, "SELECT id FROM posduif_base_tasks"), Vec::<String>::new());
}

#[tokio::test]
async fn an_upload_is_settled_by_a_page_past_its_receipt_and_not_before() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    device.send_message(bob(), "hello").unwrap();
    server.page(json!({"cursor": "c2", "lsn": "0/1FF", "has_more": false}));
    device.sync().await.unwrap();
    assert_eq!((state(&device).len(), contents(&device).len()), (1, 1));
    server.page(json!({"cursor": "c3", "lsn": "0/200", "has_more": false}));
    let summary = device.sync().await.unwrap();
    assert_eq!(summary.lsn.unwrap().to_string(), "0/200");
    // The server has everything up to the receipt and does not have the row: so it was deleted there.
    assert_eq!((state(&device).len(), contents(&device).len()), (0, 0));
}

#[tokio::test]
async fn a_remote_version_waits_below_a_local_one_until_that_is_settled() {
    let server = Server::start().await;
    let mine = || message(1, ME, BOB, "one");
    let device = server.device_with(json!([mine()]), json!([])).await;
    device.connection().execute("UPDATE messages SET content = 'local'", []).unwrap();
    let mut remote = mine();
    remote["content"] = json!("remote");
    remote["status"] = json!("read");
    server.page(json!({"messages": [remote], "cursor": "c2", "lsn": "0/1F0", "has_more": false}));
    device.sync().await.unwrap();
    assert_eq!(contents(&device), ["local"]);

    let mut echo = mine();
    echo["content"] = json!("local");
    echo["status"] = json!("read");
    echo["own"] = json!(true);
    server.page(json!({"messages": [echo], "cursor": "c3", "lsn": "0/200", "has_more": false}));
    device.sync().await.unwrap();
    assert_eq!(column(&device, "SELECT content || ' ' || status FROM messages"), ["local read"]);
    assert_eq!(state(&device), Vec::<String>::new());
}

#[tokio::test]
async fn an_echo_of_an_older_edit_does_not_flicker_over_a_newer_one() {
    let server = Server::start().await;
    let device = server.device_with(json!([message(1, ME, BOB, "zero")]), json!([])).await;
    let edit = |content: &str| {
        device.connection().execute("UPDATE messages SET content = ?1", [content]).unwrap();
    };
    let upload = |lsn: &str| server.answer(OUTGOING, Answer::Json(200, json!({"lsn": lsn})));
    edit("one");
    upload("0/200");
    device.sync().await.unwrap();
    edit("two");
    upload("0/300");
    device.sync().await.unwrap();
    edit("three");

    let mut echo = message(1, ME, BOB, "one");
    echo["own"] = json!(true);
    server.answer(OUTGOING, Answer::Cut);
    server.page(json!({"messages": [echo], "cursor": "c2", "lsn": "0/250", "has_more": false}));
    assert!(device.sync().await.is_err());
    upload("0/400");
    device.sync().await.unwrap();
    assert_eq!(contents(&device), ["three"]);
    assert_eq!(state(&device), ["put sent", "put sent"]);

    let mut echo = message(1, ME, BOB, "three");
    echo["own"] = json!(true);
    server.page(json!({"messages": [echo], "cursor": "c3", "lsn": "0/400", "has_more": false}));
    device.sync().await.unwrap();
    assert_eq!((contents(&device), state(&device)), (vec!["three".to_owned()], vec![]));
}

#[tokio::test]
async fn a_refused_message_is_listed_and_its_row_removed_while_the_others_go_on() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let bad = device.send_message(bob(), "bad").unwrap();
    device.send_message(bob(), "good").unwrap();
    let failed = json!([{"message_id": bad, "code": "INVALID_RECIPIENT", "error": "nobody"}]);
    server.answer(OUTGOING, Answer::Json(200, json!({"failed_messages": failed, "lsn": "0/200"})));
    let summary = device.sync().await.unwrap();
    assert_eq!((summary.uploaded, summary.rejected), (1, 1));
    assert_eq!(contents(&device), ["good"]);
    let [rejected] = <[_; 1]>::try_from(device.rejected().unwrap()).unwrap();
    assert_eq!((rejected.code.as_str(), rejected.error.as_str()), ("INVALID_RECIPIENT", "nobody"));
    assert!(rejected.row.unwrap().contains("\"bad\""));
    assert_eq!(device.pending_count().unwrap(), 0);
}

#[tokio::test]
async fn a_refused_edit_shows_the_newest_version_of_the_server_again() {
    let server = Server::start().await;
    let device = server.device_with(json!([message(1, ME, BOB, "stored")]), json!([])).await;
    device.connection().execute("UPDATE messages SET content = ''", []).unwrap();
    let failed =
        json!([{"table": "public.messages", "key": {"id": Uuid::from_u128(1)}, "code": "EMPTY_MESSAGE"}]);
    server.answer(OUTGOING, Answer::Json(200, json!({"failed": failed, "lsn": "0/200"})));
    assert_eq!(device.sync().await.unwrap().rejected, 1);
    assert_eq!(contents(&device), ["stored"]);
}

#[tokio::test]
async fn an_item_that_the_server_could_not_take_now_stays_pending() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let id = device.send_message(bob(), "hello").unwrap();
    let failed = json!([{"message_id": id, "code": "DATABASE_ERROR", "error": "busy"}]);
    server.answer(OUTGOING, Answer::Json(200, json!({"failed_messages": failed, "lsn": "0/200"})));
    assert_eq!(device.sync().await.unwrap().uploaded, 0);
    assert_eq!((device.pending_count().unwrap(), contents(&device).len()), (1, 1));
}

#[tokio::test]
async fn a_poisonous_item_is_found_and_given_up_and_the_others_are_uploaded() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    for content in ["a", "b", "c"] {
        device.send_message(bob(), content).unwrap();
    }
    // Limits of 100, 50, 25, 12, 6, 3 and 1: then the first item stands alone.
    for _ in 0..7 {
        server.refuse(OUTGOING, 400, "VALIDATION_ERROR");
    }
    let summary = device.sync().await.unwrap();
    assert_eq!((summary.uploaded, summary.rejected), (2, 1));
    assert_eq!(device.pending_count().unwrap(), 0);
    assert_eq!(column(&device, "SELECT content FROM messages ORDER BY content"), ["b", "c"]);
}

#[tokio::test]
async fn answers_that_are_not_the_servers_word_drop_nothing() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    device.send_message(bob(), "hello").unwrap();
    for status in [200, 302, 400, 401, 403, 404, 500, 502] {
        server.answer(OUTGOING, Answer::Raw(status, "", "<html>".to_owned()));
        assert!(device.sync().await.is_err(), "{status}");
        assert_eq!((device.pending_count().unwrap(), contents(&device).len()), (1, 1), "{status}");
    }
    assert_eq!(device.sync().await.unwrap().uploaded, 1);
}

#[tokio::test]
async fn uploads_are_bounded_in_items_and_bytes() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let large = "x".repeat(200 * 1024);
    for content in [large.as_str(), &large, "small"] {
        device.send_message(bob(), content).unwrap();
    }
    for _ in 0..101 {
        device.send_message(bob(), "one of many").unwrap();
    }
    assert_eq!(device.sync().await.unwrap().uploaded, 104);
    let uploads = server.take_requests().into_iter().filter(|request| request.route == OUTGOING);
    let sizes: Vec<_> = uploads.map(|upload| upload.body["messages"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [1, 100, 3]);
}

#[tokio::test]
async fn reading_a_message_is_uploaded_once_and_holds_until_the_server_shows_it() {
    let server = Server::start().await;
    let device = server.device_with(json!([message(1, BOB, ME, "hi")]), json!([])).await;
    assert_eq!(device.inbox().unwrap().len(), 1);
    assert!(device.mark_read(Uuid::from_u128(1)).unwrap());
    assert!(!device.mark_read(Uuid::from_u128(1)).unwrap());
    server.page(
        json!({"messages": [message(1, BOB, ME, "hi")], "cursor": "c2", "lsn": "0/1", "has_more": false}),
    );
    device.sync().await.unwrap();
    let upload = server.take_requests().remove(0);
    assert_eq!((&upload.body["messages"], &upload.body["reads"]), (&json!([]), &json!([Uuid::from_u128(1)])));
    assert_eq!(device.inbox().unwrap()[0].status.as_deref(), Some("read"));
}

#[tokio::test]
async fn a_superseded_edit_is_listed_and_the_winner_comes_by_the_stream() {
    let server = Server::start().await;
    let device = server.device_with(json!([message(1, ME, BOB, "old")]), json!([])).await;
    device.connection().execute("UPDATE messages SET content = 'loser'", []).unwrap();
    let winner = message(1, ME, BOB, "winner");
    let answer = json!({"conflicts": [{"table": "public.messages", "row": winner}], "lsn": "0/200"});
    server.answer(OUTGOING, Answer::Json(200, answer));
    server.page(json!({"messages": [winner], "cursor": "c2", "lsn": "0/200", "has_more": false}));
    assert_eq!(device.sync().await.unwrap().superseded, 1);
    assert_eq!(contents(&device), ["winner"]);
    let [rejected] = <[_; 1]>::try_from(device.rejected().unwrap()).unwrap();
    assert_eq!(rejected.code, "CONFLICT");
    assert!(rejected.row.unwrap().contains("loser"));
}

#[tokio::test]
async fn a_revoked_device_is_told_so_and_keeps_its_writes() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    device.send_message(bob(), "hello").unwrap();
    server.refuse(OUTGOING, 401, "UNAUTHORIZED");
    assert!(matches!(device.sync().await, Err(Error::Unauthorized(_))));
    assert_eq!(device.pending_count().unwrap(), 1);
    let asked = server.take_requests();
    assert!(asked.iter().all(|request| request.route != INCOMING));
}

#[tokio::test]
async fn a_refused_edit_of_a_row_that_is_gone_at_the_server_removes_it() {
    let server = Server::start().await;
    let device = server.device_with(json!([message(1, ME, BOB, "stored")]), json!([])).await;
    device.connection().execute("UPDATE messages SET content = 'edited'", []).unwrap();
    server.answer(OUTGOING, Answer::Raw(500, "", String::new()));
    let truncate = json!([{"table": "public.messages", "op": "truncate"}]);
    server.page(json!({"changes": truncate, "cursor": "c2", "lsn": "0/110", "has_more": false}));
    assert!(matches!(device.sync().await, Err(Error::Retry { .. })));
    assert_eq!(contents(&device), ["edited"]);
    let failed = json!([{"message_id": Uuid::from_u128(1), "code": "NOT_FOUND", "error": "gone"}]);
    server.answer(OUTGOING, Answer::Json(200, json!({"failed_messages": failed, "lsn": "0/200"})));
    device.sync().await.unwrap();
    assert_eq!(contents(&device), Vec::<String>::new());
}

#[tokio::test]
async fn writes_of_a_row_are_joined_only_where_none_of_another_row_lies_between() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    device
        .connection()
        .execute_batch(
            "INSERT INTO tasks (id, title) VALUES (1, 'parent'), (2, 'child of 1'), (3, 'second parent');
             UPDATE tasks SET title = 'child of 3' WHERE id = 2;
             UPDATE tasks SET title = 'child of three' WHERE id = 2;
             UPDATE tasks SET title = 'parent of none' WHERE id = 1;",
        )
        .unwrap();
    assert_eq!(device.sync().await.unwrap().uploaded, 3);
    let upload = server.take_requests().into_iter().find(|request| request.route == OUTGOING).unwrap();
    let changes = upload.body["changes"].as_array().unwrap();
    let titles: Vec<_> = changes.iter().map(|change| change["row"]["title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["parent", "child of 1", "second parent", "child of three", "parent of none"]);
    assert_eq!(state(&device), vec!["put sent"; 6]);
}
