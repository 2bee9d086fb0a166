//! What the API's user of Redis may do.

use std::time::Duration;

use posduif_changelog::{Timeouts, connect::connect};
use posduif_model::{Bucket, UserId};
use posduif_testkit::{Servers, eventually_true};
use reqwest::Method;
use serde_json::json;

use crate::{
    fixture::{Api, By, Phone, is, ok, put, refused},
    listener::Listener,
    live::message,
};

const LONG: Duration = Duration::from_secs(60);
const QUICK: &str = "api: {sse: {offline_after: 1s, ping_interval: 100ms}}\n\
                     rate_limit: {requests_per_minute: 100000, login_per_minute: 1}";

#[tokio::test]
async fn the_rights_that_are_shipped_are_enough_and_none_is_missed() {
    let servers = Servers::private().await;
    let mut redis = connect(servers.redis_url(), Timeouts::default()).await.unwrap();
    let api = Api::on(&servers, QUICK).await;
    let (bob, bob_jwt) = api.web_user("bob").await;
    let ann = api.phone(&bob_jwt, "ann").await;
    api.message(bob, ann.user, "hello").await;
    let _following = api.follow().await;
    let pages = api.snapshot(&ann, 1).await;
    let since = pages.last().unwrap()["cursor"].as_str().unwrap();
    let later = put("messages", json!({"id": "later"}), json!({"id": "later"}));
    api.commit(Some(&ann), &[Bucket::User(ann.user)], &[later]).await;
    let page = ok(api.incoming(&ann, since, 100)).await;
    assert_eq!(page["messages"].as_array().unwrap().len(), 1);
    ok(api.incoming(&ann, page["cursor"].as_str().unwrap(), 100)).await;
    ok(api.outgoing(&ann, &json!({"messages": []}))).await;
    assert_eq!(ok(api.get("/api/sync/status").by(&ann)).await["sync_status"], "idle");
    ok(api.get("/api/sync/incoming").by(&ann)).await;
    live(&api, &bob_jwt, bob, &ann).await;
    strangers(&api).await;
    // Also what went on without it: a connection that cannot be checked is made anew for every request.
    let refused: Vec<Vec<redis::Value>> = redis::cmd("ACL").arg("LOG").query_async(&mut redis).await.unwrap();
    // The library introduces itself where it may.
    let refused: Vec<String> = refused.iter().map(|entry| format!("{entry:?}")).collect();
    let refused: Vec<&String> = refused.iter().filter(|entry| !entry.contains("client|setinfo")).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

/// Everything about those who try to get in that asks Redis for something.
async fn strangers(api: &Api) {
    let login = |name: &str| api.post("/api/auth/login", &json!({"username": name, "password": "wrong"}));
    assert_eq!(refused(login("bob")).await, is(401, "UNAUTHORIZED"));
    assert_eq!(refused(login("bob")).await, is(429, "RATE_LIMITED"));
    assert_eq!(refused(api.get("/api/enrollment/unknown")).await, is(404, "NOT_FOUND"));
}

/// Everything about live connections that asks Redis for something.
async fn live(api: &Api, jwt: &str, bob: UserId, ann: &Phone) {
    let mut live = api.listen(ann).await;
    api.commit(None, &[Bucket::User(ann.user)], &[message("m1", bob, ann.user, "pending_sync")]).await;
    live.expect_message("m1").await;
    // A transaction of many users has a set of its own.
    let crowd = (0..1_001).map(|n| Bucket::User(UserId::new(uuid::Uuid::from_u128(n))));
    let crowd: Vec<Bucket> = crowd.chain([Bucket::User(ann.user)]).collect();
    api.commit(None, &crowd, &[message("m2", bob, ann.user, "pending_sync")]).await;
    live.expect_message("m2").await;
    let mut resumed = Listener::open(api.live(ann).header("Last-Event-ID", &live.id)).await;
    resumed.expect("sync_required").await;
    let ticket = ok(api.post("/api/sse/ticket", &json!({})).bearer_auth(jwt)).await;
    let ticket = ticket["ticket"].as_str().unwrap();
    let web = Listener::open(api.get(&format!("/sse/web/{bob}?ticket={ticket}"))).await;
    let online = "SELECT count(*) = 2 FROM users WHERE online_status";
    let are = async |sql: &str| -> bool { api.sql.query_one(sql, &[]).await.unwrap().get(0) };
    eventually_true(LONG, "both are online", async || Ok(are(online).await)).await;
    drop(web);
    let offline = "SELECT count(*) = 1 FROM users WHERE online_status";
    eventually_true(LONG, "one is offline", async || Ok(are(offline).await)).await;
    let revoked = api.request(Method::DELETE, &format!("/api/devices/{}", ann.id)).bearer_auth(jwt);
    ok(revoked).await;
    assert_eq!(live.rest().await, []);
}
