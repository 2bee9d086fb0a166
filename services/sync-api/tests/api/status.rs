//! `GET /api/sync/status`.

use posduif_model::Bucket;
use serde_json::{Value, json};

use crate::fixture::{Api, By, ok, put};

#[tokio::test]
async fn the_status_tells_how_far_a_device_is_behind() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let status = async || ok(api.get("/api/sync/status").by(&ann)).await;
    let fresh = status().await;
    let expected = json!({
        "device_id": ann.id, "last_sync_timestamp": null, "last_synced_lsn": null, "pending_outgoing_count": 0,
        "pending_incoming_count": 0, "sync_status": "syncing", "mode": "wal",
    });
    assert_eq!(fresh, expected);

    let page = api.snapshot(&ann, 100).await.pop().unwrap();
    ok(api.incoming(&ann, page["cursor"].as_str().unwrap(), 100)).await;
    let idle = status().await;
    assert_eq!((&idle["sync_status"], &idle["pending_incoming_count"]), (&json!("idle"), &json!(0)));
    assert!(idle["last_sync_timestamp"].is_string() && idle["last_synced_lsn"].is_string(), "{idle}");

    let row = |n: u8| put("messages", json!({"id": n}), json!({"id": n}));
    let mine = [Bucket::User(ann.user)];
    api.commit(None, &mine, &[row(1), row(2)]).await;
    api.commit(None, &[Bucket::Shared], &[put("users", json!({"id": 1}), json!({"id": 1}))]).await;
    let stranger = Bucket::User("00000000-0000-0000-0000-000000000009".parse().unwrap());
    let end = api.commit(None, &[stranger], &[row(3)]).await;
    let behind = status().await;
    assert_eq!((&behind["sync_status"], &behind["pending_incoming_count"]), (&json!("syncing"), &json!(3)));

    let page = ok(api.incoming(&ann, page["cursor"].as_str().unwrap(), 100)).await;
    assert_eq!(status().await["pending_incoming_count"], 3, "the answer may have been lost");
    ok(api.incoming(&ann, page["cursor"].as_str().unwrap(), 100)).await;
    let caught_up = status().await;
    assert_eq!(caught_up["sync_status"], "idle");
    assert_eq!(caught_up["last_synced_lsn"], json!(end.to_string()));
}

#[tokio::test]
async fn a_broken_log_is_an_error() {
    let api = Api::start().await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let at = crate::fixture::insert_lsn(&api.sql).await;
    api.log.lock().await.open(4, at, "other", None).await;
    let status: Value = ok(api.get("/api/sync/status").by(&ann)).await;
    assert_eq!(status["sync_status"], "error");
}
