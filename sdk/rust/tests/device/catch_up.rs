use posduif_sdk::{Device, Error};
use serde_json::json;

use crate::{
    enrolment::while_hanging,
    server::{Answer, BOB, INCOMING, ME, OUTGOING, Server, bob, column, contents, message},
};

#[tokio::test]
async fn pages_become_visible_together_and_the_cursor_moves_with_them() {
    let server = Server::start().await;
    let device = server.device_with(json!([message(1, BOB, ME, "one")]), json!([])).await;
    server.page(
        json!({"messages": [message(2, BOB, ME, "two")], "cursor": "c2", "lsn": "0/110", "has_more": true}),
    );
    server.answer(INCOMING, Answer::Hang);
    while_hanging(&server, &device, async {
        assert_eq!(contents(&device), ["one"]);
    })
    .await;
    server.page(json!({"messages": [message(3, BOB, ME, "three")], "deleted": {"messages": [
        "00000000-0000-0000-0000-000000000001"]}, "cursor": "c3", "lsn": "0/120", "has_more": false}));
    let summary = device.sync().await.unwrap();
    assert_eq!((summary.received, summary.snapshot), (3, false));
    assert_eq!(contents(&device), ["two", "three"]);
    assert_eq!(column(&device, "SELECT value FROM posduif_state WHERE name = 'cursor'"), ["c3"]);
}

#[tokio::test]
async fn a_staged_page_survives_the_process_and_is_not_asked_for_again() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    server.page(
        json!({"messages": [message(1, BOB, ME, "one")], "cursor": "c2", "lsn": "0/110", "has_more": true}),
    );
    server.answer(INCOMING, Answer::Cut);
    assert!(matches!(device.sync().await, Err(Error::Offline(_))));
    drop(device);

    let device = Device::open(server.path()).unwrap();
    assert_eq!((contents(&device).len(), server.cursors()), (0, vec!["c1".to_owned(), "c2".to_owned()]));
    server.page(json!({"cursor": "c3", "lsn": "0/120", "has_more": false}));
    assert_eq!(device.sync().await.unwrap().received, 1);
    assert_eq!((contents(&device), server.cursors()[0].as_str()), (vec!["one".to_owned()], "c2"));
}

#[tokio::test]
async fn a_process_that_died_before_the_swap_swaps_first_thing() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let page =
        json!({"messages": [message(1, BOB, ME, "one")], "cursor": "c2", "lsn": "0/110", "has_more": false});
    let sql = "INSERT INTO posduif_staging (cursor, has_more, body) VALUES ('c2', 0, ?1)";
    device.connection().execute(sql, [page.to_string().into_bytes()]).unwrap();
    server.answer(INCOMING, Answer::Cut);
    assert!(device.sync().await.is_err());
    assert_eq!((contents(&device), server.cursors()), (vec!["one".to_owned()], vec!["c2".to_owned()]));
}

#[tokio::test]
async fn new_rows_are_confirmed_by_sending_their_cursor_back_once() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    server.page(
        json!({"messages": [message(1, BOB, ME, "one")], "cursor": "c2", "lsn": "0/110", "has_more": false}),
    );
    device.sync().await.unwrap();
    assert_eq!(server.cursors(), ["c1", "c2"]);
    device.sync().await.unwrap();
    assert_eq!(server.cursors(), ["c2"]);
}

#[tokio::test]
async fn a_page_that_breaks_the_protocol_is_not_staged_and_loses_nothing() {
    let server = Server::start().await;
    let device = server.device_with(json!([message(1, BOB, ME, "one")]), json!([])).await;
    // It comes once more after the device has asked whether its tables are still the right ones.
    for _ in 0..2 {
        let rows = json!([{"content": "secret-canary without a key"}]);
        server.page(json!({"messages": rows, "cursor": "c2", "has_more": false}));
    }
    let error = device.sync().await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)));
    server.answer(
        INCOMING,
        Answer::Raw(200, "", "{\"cursor\":\"c2\",\"has_more\":\"secret-canary\"}".to_owned()),
    );
    let error = device.sync().await.unwrap_err();
    assert!(matches!(&error, Error::Protocol(why) if !why.contains("canary")), "{error}");
    assert_eq!(contents(&device), ["one"]);
    device.sync().await.unwrap();
    assert_eq!(server.cursors(), ["c1"; 4]);
}

#[tokio::test]
async fn a_server_that_asks_to_wait_is_asked_again_with_the_same_cursor() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let busy = r#"{"error":{"code":"SYNC_ERROR","message":"not yet","details":null,"request_id":"r"}}"#;
    for _ in 0..2 {
        server.answer(INCOMING, Answer::Raw(503, "retry-after: 0\r\n", busy.to_owned()));
    }
    device.sync().await.unwrap();
    assert_eq!(server.cursors(), ["c1"; 3]);
}

#[tokio::test]
async fn rows_from_the_server_never_enter_the_outbox_and_local_ones_always_do() {
    let server = Server::start().await;
    let device = server.device_with(json!([message(1, ME, BOB, "mine")]), json!([])).await;
    assert_eq!(device.pending_count().unwrap(), 0);
    let orm = posduif_sdk::rusqlite::Connection::open(server.path()).unwrap();
    let sql = "INSERT INTO messages (id, recipient_id, content) VALUES ('m', ?1, 'by an ORM')";
    orm.execute(sql, [BOB]).unwrap();
    assert_eq!(device.pending_count().unwrap(), 1);
    let [shown] =
        <[_; 1]>::try_from(column(&device, "SELECT sender_id FROM messages WHERE id = 'm'")).unwrap();
    assert_eq!(shown, ME);
    device.sync().await.unwrap();
    let upload = server.take_requests().remove(0);
    assert_eq!(upload.route, OUTGOING);
    assert!(upload.body["messages"][0]["created_at"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn local_writes_go_on_while_a_sync_waits_for_the_network() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    server.answer(INCOMING, Answer::Hang);
    while_hanging(&server, &device, async {
        device.send_message(bob(), "meanwhile").unwrap();
    })
    .await;
    assert_eq!(device.sync().await.unwrap().uploaded, 1);
}

#[tokio::test]
async fn a_truncate_takes_every_row_of_the_server_and_no_unsent_one() {
    let server = Server::start().await;
    let device = server.device_with(json!([message(1, BOB, ME, "one")]), json!([])).await;
    device.send_message(bob(), "unsent").unwrap();
    server.answer(OUTGOING, Answer::Cut);
    assert!(device.sync().await.is_err());
    server.answer(OUTGOING, Answer::Raw(500, "", String::new()));
    server.page(json!({"changes": [{"table": "public.messages", "op": "truncate"}],
                       "messages": [message(2, BOB, ME, "after")], "cursor": "c2", "lsn": "0/110", "has_more": false}));
    assert!(matches!(device.sync().await, Err(Error::Retry { .. })));
    assert_eq!(column(&device, "SELECT content FROM messages ORDER BY content"), ["after", "unsent"]);
}

#[tokio::test]
async fn a_cursor_that_the_server_cannot_open_is_given_up_for_a_snapshot() {
    let server = Server::start().await;
    let device = server.device_with(json!([message(1, BOB, ME, "old")]), json!([])).await;
    server.refuse(INCOMING, 400, "VALIDATION_ERROR");
    server.page(json!({"messages": [message(2, BOB, ME, "new")], "cursor": "s1", "lsn": "0/200", "has_more": false, "snapshot": true}));
    assert!(device.sync().await.unwrap().snapshot);
    assert_eq!((contents(&device), server.cursors()), (vec!["new".to_owned()], own(&["c1", "start", "s1"])));

    server.refuse(INCOMING, 400, "VALIDATION_ERROR");
    server.refuse(INCOMING, 400, "VALIDATION_ERROR");
    let error = device.sync().await.unwrap_err();
    assert!(matches!(error, Error::Rejected { code, .. } if code == "VALIDATION_ERROR"));
    assert_eq!((contents(&device), server.cursors()), (vec!["new".to_owned()], own(&["s1", "start"])));
}

#[tokio::test]
async fn an_answer_too_large_for_the_client_leads_to_a_snapshot_a_few_times() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    server.answer(INCOMING, Answer::Sized(1 << 40));
    server.page(json!({"messages": [message(1, BOB, ME, "one")], "cursor": "s1", "lsn": "0/200", "has_more": false, "snapshot": true}));
    device.sync().await.unwrap();
    assert_eq!((contents(&device), server.cursors()), (vec!["one".to_owned()], own(&["c1", "start", "s1"])));

    for _ in 0..10 {
        server.answer(INCOMING, Answer::Sized(1 << 40));
    }
    assert!(matches!(device.sync().await, Err(Error::Resync)));
    assert_eq!(server.cursors(), ["s1", "start", "start", "start"]);
}

fn own(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}
