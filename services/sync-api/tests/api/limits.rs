//! Time: slow bodies, held locks, callers that went away, databases that stay silent.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};
use uuid::Uuid;

use crate::fixture::{Api, is, ok, refused};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_table_that_stays_locked_ends_an_upload_in_time() {
    let api = Api::start().await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let other = api.database.connect().await;
    other.batch_execute("BEGIN; LOCK TABLE messages").await.unwrap();
    let upload = json!({"messages": [{"id": Uuid::new_v4(), "recipient_id": bob, "content": "c"}]});
    let answer = timeout(SOON, refused(api.outgoing(&ann, &upload))).await.unwrap();
    assert_eq!(answer, is(503, "DATABASE_ERROR"));
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(ok(api.outgoing(&ann, &upload)).await["synced_count"], 1);
}

#[tokio::test]
async fn a_snapshot_waits_no_longer_than_it_may_also_for_its_mark() {
    let api = Api::with("api: {snapshot_wait: 300ms}").await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let page = ok(api.incoming(&ann, "start", 500)).await;
    let hidden = "ALTER FUNCTION pg_logical_emit_message(boolean, text, text, boolean) RENAME TO emit_at_once;
        CREATE FUNCTION pg_catalog.pg_logical_emit_message(boolean, text, text, flush boolean DEFAULT false)
        RETURNS pg_lsn LANGUAGE sql AS
        'SELECT pg_sleep(8); SELECT pg_catalog.emit_at_once($1, $2, $3, $4)'";
    let admin = api.database.connect_admin().await;
    admin.batch_execute("SET allow_system_table_mods = on").await.unwrap();
    admin.batch_execute(hidden).await.unwrap();
    let started = Instant::now();
    let answer = refused(api.incoming(&ann, page["cursor"].as_str().unwrap(), 500)).await;
    assert_eq!(answer, is(503, "SYNC_ERROR"));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_body_that_breaks_off_may_be_sent_again() {
    let api = Api::start().await;
    let mut stream = tokio::net::TcpStream::connect(api.base.trim_start_matches("http://")).await.unwrap();
    let head = "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("SYNC_ERROR") && answer.to_lowercase().contains("retry-after: "), "{answer}");
}

#[tokio::test]
async fn a_body_in_an_encoding_that_is_not_known_is_refused_by_name() {
    let api = Api::start().await;
    let login = || api.post("/api/auth/login", &json!({"username": "bob", "password": "x"}));
    for encoding in ["br", "zstd", "gzip, gzip", "x"] {
        let response = login().header("content-encoding", encoding).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, 400, "{encoding}");
        assert!(text.contains("VALIDATION_ERROR") && text.contains("gzip"), "{text}");
    }
    assert_eq!(refused(login().header("content-encoding", "identity")).await, is(401, "UNAUTHORIZED"));
}
