//! Time: slow bodies, held locks, callers that went away, databases that stay silent.

use std::time::Duration;

use posduif_runtime::{
    config::Config,
    postgres::{self, SessionLimits},
};
use posduif_sync_api::store::{Database, StoreError};
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

/// A database behind a pool of one connection.
fn database(api: &Api, deadline: Duration) -> Database {
    let yaml = format!("tenants: [{{url: '{}'}}]", api.database.url());
    let limits = SessionLimits {
        statement: Duration::from_secs(60),
        lock: Duration::from_secs(60),
        idle_in_transaction: Duration::from_secs(60),
    };
    let tenant = &Config::from_yaml(&yaml).unwrap().tenants[0];
    Database::new(postgres::pool(tenant, "test", 1, &limits).unwrap(), deadline)
}

async fn backend(database: &Database) -> i32 {
    let asked = database.run(async |client| -> Result<i32, StoreError> {
        Ok(client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0))
    });
    timeout(SOON, asked).await.unwrap().unwrap()
}

async fn sleep(database: &Database) -> Result<(), StoreError> {
    database.run(async |client| Ok(client.batch_execute("SELECT pg_sleep(50)").await?)).await
}

#[tokio::test]
async fn a_connection_whose_work_takes_too_long_is_given_up() {
    let api = Api::start().await;
    let database = database(&api, Duration::from_millis(500));
    let first = backend(&database).await;
    assert_eq!(backend(&database).await, first);
    assert!(matches!(sleep(&database).await, Err(StoreError::Unavailable(_))));
    assert_ne!(backend(&database).await, first);
}

#[tokio::test]
async fn a_connection_whose_caller_went_away_is_not_lent_again() {
    let api = Api::start().await;
    let database = database(&api, Duration::from_secs(60));
    let first = backend(&database).await;
    assert!(timeout(Duration::from_millis(200), sleep(&database)).await.is_err());
    assert_ne!(backend(&database).await, first);
}

#[tokio::test]
async fn connections_of_a_pool_have_limits_that_postgres_keeps() {
    let api = Api::start().await;
    let database = database(&api, Duration::from_secs(60));
    let show = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings
                 WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'TimeZone')";
    let settings = database
        .run(async |client| -> Result<String, StoreError> { Ok(client.query_one(show, &[]).await?.get(0)) });
    assert_eq!(
        settings.await.unwrap(),
        "TimeZone=UTC idle_in_transaction_session_timeout=60000 lock_timeout=60000 statement_timeout=60000"
    );
}

#[tokio::test]
async fn a_snapshot_waits_no_longer_than_it_may_also_for_its_mark() {
    let api = Api::with("api: {snapshot_wait: 300ms}").await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let page = ok(api.incoming(&ann, "start", 500)).await;
    let hidden =
        "ALTER FUNCTION pg_logical_emit_message(boolean, text, text, boolean) RENAME TO emit_at_once;
        CREATE FUNCTION pg_catalog.pg_logical_emit_message(boolean, text, text, flush boolean DEFAULT false)
        RETURNS pg_lsn LANGUAGE sql AS
        'SELECT pg_sleep(8); SELECT pg_catalog.emit_at_once($1, $2, $3, $4)'";
    let admin = api.database.connect_superuser().await;
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
