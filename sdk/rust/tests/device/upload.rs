use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use posduif_sdk::{Device, Error};
use serde_json::json;

use crate::server::{
    Answer, BOB, INCOMING, INSTRUCTIONS, ME, OUTGOING, Request, Server, bob, column, contents, instructions,
    message, tasks,
};

fn uploads(server: &Server) -> Vec<Request> {
    server.take_requests().into_iter().filter(|request| request.route == OUTGOING).collect()
}

#[tokio::test]
async fn an_upload_without_an_answer_is_repeated_byte_for_byte_whatever_happened_since() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    device.send_message(bob(), "one").unwrap();
    device.connection().execute("INSERT INTO tasks (id, title) VALUES (1, 'first')", []).unwrap();
    server.answer(OUTGOING, Answer::Cut);
    assert!(matches!(device.sync().await, Err(Error::Offline(_))));
    // The process dies, more is written, and another version of the tables is installed.
    drop(device);
    let device = Device::open(server.path()).unwrap();
    device.send_message(bob(), "two").unwrap();
    device.connection().execute("UPDATE tasks SET title = 'second'", []).unwrap();
    device.connection().execute("INSERT INTO posduif_state VALUES ('stale', 1)", []).unwrap();
    for (answer, fails) in [(Answer::Raw(502, "", String::new()), true), (Answer::Cut, true)] {
        server.answer(OUTGOING, answer);
        assert_eq!(device.sync().await.is_err(), fails);
    }
    device.sync().await.unwrap();
    let sent = uploads(&server);
    let [first, second, third, fourth, rest] = sent.as_slice() else { panic!("{} uploads", sent.len()) };
    for repeated in [second, third, fourth] {
        assert_eq!(repeated.bytes, first.bytes);
    }
    assert_eq!(
        (&first.body["pending_outgoing_count"], &rest.body["pending_outgoing_count"]),
        (&json!(0), &json!(0))
    );
    assert_ne!(first.body["upload_id"], rest.body["upload_id"]);
    assert_eq!(rest.body["messages"][0]["content"], "two");
    assert_eq!(rest.body["changes"][0]["row"]["title"], "second");
    assert_eq!(device.pending_count().unwrap(), 0);
}

#[tokio::test]
async fn each_upload_says_how_much_is_left() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    for _ in 0..250 {
        device.send_message(bob(), "one of many").unwrap();
    }
    device.sync().await.unwrap();
    let sent = uploads(&server);
    let left: Vec<_> = sent.iter().map(|upload| upload.body["pending_outgoing_count"].as_u64()).collect();
    assert_eq!(left, [Some(150), Some(50), Some(0)]);
    assert!(sent.iter().all(|upload| upload.headers["content-encoding"] == "gzip"));
    device.send_message(bob(), "short").unwrap();
    device.sync().await.unwrap();
    let [short] = <[_; 1]>::try_from(uploads(&server)).ok().unwrap();
    assert!(!short.headers.contains_key("content-encoding"));
    assert!(short.bytes.len() < 1024);
}

#[tokio::test]
async fn an_upload_whose_id_stands_for_another_one_goes_under_a_new_id() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    device.send_message(bob(), "hello").unwrap();
    server.refuse(OUTGOING, 409, "CONFLICT");
    assert!(matches!(device.sync().await, Err(Error::Retry { .. })));
    assert_eq!(device.sync().await.unwrap().uploaded, 1);
    let [refused, taken] = <[_; 2]>::try_from(uploads(&server)).ok().unwrap();
    assert_ne!(refused.body["upload_id"], taken.body["upload_id"]);
    assert_eq!(refused.body["messages"], taken.body["messages"]);
}

#[tokio::test]
async fn after_a_lost_history_nothing_goes_up_under_an_old_id() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    device.send_message(bob(), "hello").unwrap();
    server.answer(OUTGOING, Answer::Raw(500, "", String::new()));
    server.refuse(INCOMING, 410, "CURSOR_EXPIRED");
    server.page(json!({"cursor": "s1", "lsn": "0/210", "has_more": false, "snapshot": true}));
    assert!(device.sync().await.is_err());
    device.sync().await.unwrap();
    let [old, new] = <[_; 2]>::try_from(uploads(&server)).ok().unwrap();
    assert_eq!(old.body["messages"], new.body["messages"]);
    assert_ne!(old.body["upload_id"], new.body["upload_id"]);
}

#[tokio::test]
async fn an_upload_that_covers_a_withdrawn_table_settles_the_rest() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    device.send_message(bob(), "hello").unwrap();
    device.connection().execute("INSERT INTO tasks (id, title) VALUES (5, 'unsent')", []).unwrap();
    server.answer(OUTGOING, Answer::Cut);
    assert!(device.sync().await.is_err());
    device.connection().execute("INSERT INTO posduif_state VALUES ('stale', 1)", []).unwrap();
    server.answer(OUTGOING, Answer::Raw(500, "", String::new()));
    server.answer(INSTRUCTIONS, Answer::Json(200, instructions("r2", json!(null))));
    server.page(json!({"cursor": "s1", "lsn": "0/100", "has_more": false, "snapshot": true}));
    assert!(device.sync().await.is_err());
    assert_eq!(device.sync().await.unwrap().uploaded, 1);
    assert_eq!(device.rejected().unwrap()[0].code, "RULES_CHANGED");
    assert_eq!((contents(&device), device.pending_count().unwrap()), (vec!["hello".to_owned()], 0));
}

#[tokio::test]
async fn answers_come_compressed_and_none_grows_beyond_what_a_device_can_hold() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let page = json!({"messages": [message(1, BOB, ME, "small")], "cursor": "c2", "lsn": "0/110", "has_more": false});
    server.answer(INCOMING, Answer::Coded("gzip", gzip(page.to_string().as_bytes())));
    device.sync().await.unwrap();
    assert_eq!(contents(&device), ["small"]);
    let asked = server.take_requests().remove(0);
    for coding in ["gzip", "br", "zstd"] {
        assert!(asked.headers["accept-encoding"].contains(coding), "{}", asked.headers["accept-encoding"]);
    }

    let bomb = gzip(&vec![b' '; 129 << 20]);
    assert!(bomb.len() < 1 << 20);
    server.answer(INCOMING, Answer::Coded("gzip", bomb));
    server.page(json!({"messages": [message(2, BOB, ME, "after")], "cursor": "s1", "lsn": "0/200", "has_more": false, "snapshot": true}));
    device.sync().await.unwrap();
    assert_eq!((contents(&device), server.cursors()[1].as_str()), (vec!["after".to_owned()], "start"));
}

#[tokio::test]
async fn instructions_are_asked_for_again_after_a_day() {
    let server = Server::start().await;
    let device = server.device_with(json!([]), json!([])).await;
    let asked = || server.take_requests().into_iter().filter(|request| request.route == INSTRUCTIONS).count();
    device.sync().await.unwrap();
    assert_eq!(asked(), 0);
    for age in ["- 90000", "+ 3600"] {
        let sql = format!("UPDATE posduif_state SET value = value {age} WHERE name = 'instructed_at'");
        device.connection().execute(&sql, []).unwrap();
        let mut rules = tasks();
        rules["write"] = json!(null);
        server.answer(INSTRUCTIONS, Answer::Json(200, instructions("r1", rules)));
        assert!(!device.sync().await.unwrap().snapshot, "what may be written says nothing of what there is");
        assert_eq!(asked(), 1);
    }
    let error = device.connection().execute("INSERT INTO tasks (id) VALUES (1)", []).unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
    assert_eq!(column(&device, "SELECT value FROM posduif_state WHERE name = 'cursor'"), ["c1"]);
}
