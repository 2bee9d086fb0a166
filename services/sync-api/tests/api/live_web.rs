//! `/sse/web`: what a browser hears, and how it gets in.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use posduif_model::Bucket;
use posduif_sync_api::credential::jwt::{Jwt, Subject};
use posduif_testkit::{Servers, eventually_true};
use reqwest::RequestBuilder;
use serde_json::json;

use crate::{
    fixture::{Api, SECRET, is, ok, refused},
    listener::Listener,
    live::{message, user_row},
};

const QUICK: &str = "api: {sse: {shared_interval: 300ms, recheck_interval: 100ms}}";

fn live(api: &Api, user: posduif_model::UserId, jwt: &str) -> RequestBuilder {
    api.get(&format!("/sse/web/{user}")).bearer_auth(jwt)
}

async fn ticket(api: &Api, jwt: &str) -> String {
    let answer = ok(api.post("/api/sse/ticket", &json!({})).bearer_auth(jwt)).await;
    assert_eq!(answer["expires_in"], 30);
    answer["ticket"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_browser_hears_of_messages_reads_and_users() {
    let api = Api::with(QUICK).await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let mut web = Listener::open(live(&api, bob, &jwt)).await;
    let id = api.message(ann.user, bob, "hello").await.to_string();
    api.commit(None, &[Bucket::User(bob)], &[message(&id, ann.user, bob, "synced")]).await;
    let told = web.expect("new_message").await;
    assert_eq!(told, json!({"type": "new_message", "message_id": id, "unread_count": 1}));
    // One that was sent is none that came; that it was read is news.
    api.commit(None, &[Bucket::User(bob)], &[message("m2", bob, ann.user, "pending_sync")]).await;
    api.commit(None, &[Bucket::User(bob)], &[message("m2", bob, ann.user, "read")]).await;
    assert_eq!(web.expect("message_read").await, json!({"type": "message_read", "message_id": "m2"}));
    // A user's row that changes often is told once per interval.
    for _ in 0..3 {
        api.commit(None, &[Bucket::Shared], &[user_row(&ann.user.to_string())]).await;
    }
    assert_eq!(web.expect("user_updated").await, json!({"type": "user_updated", "user_id": ann.user}));
}

#[tokio::test]
async fn a_browser_that_comes_back_hears_what_it_missed() {
    let api = Api::with(QUICK).await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let mut web = Listener::open(live(&api, bob, &jwt)).await;
    api.commit(None, &[Bucket::User(bob)], &[message("m1", ann.user, bob, "synced")]).await;
    web.expect("new_message").await;
    let last = web.id.clone();
    drop(web);
    api.commit(None, &[Bucket::User(bob)], &[message("m2", ann.user, bob, "synced")]).await;
    let mut web = Listener::open(live(&api, bob, &jwt).header("Last-Event-ID", last)).await;
    assert_eq!(web.expect("new_message").await["message_id"], "m2");
    // Its place is worth nothing to somebody else.
    let (jane, jane_jwt) = api.web_user("jane").await;
    let mut other = Listener::open(live(&api, jane, &jane_jwt).header("Last-Event-ID", &web.id)).await;
    other.expect("resync").await;
}

#[tokio::test]
async fn a_ticket_lets_its_user_in_once_whoever_tries_at_the_same_time() {
    let api = Api::with("api: {sse: {max_per_user: 100}}").await;
    let (bob, jwt) = api.web_user("bob").await;
    let (jane, _) = api.web_user("jane").await;
    let ticket_of_bob = ticket(&api, &jwt).await;
    let tries = (0..50).map(|_| api.get(&format!("/sse/web/{bob}?ticket={ticket_of_bob}")).send());
    let answers = futures::future::join_all(tries).await;
    let mut statuses: Vec<u16> =
        answers.iter().map(|answer| answer.as_ref().unwrap().status().as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (200, &[401; 49][..]));
    let answer = answers.into_iter().map(Result::unwrap).find(|answer| answer.status() == 200).unwrap();
    let mut web = Listener::of(answer).await;
    api.commit(None, &[Bucket::User(bob)], &[message("m1", jane, bob, "synced")]).await;
    web.expect("new_message").await;

    // The path names the caller, and a ticket is spent although it was for somebody else.
    let spent = ticket(&api, &jwt).await;
    assert_eq!(refused(api.get(&format!("/sse/web/{jane}?ticket={spent}"))).await, is(404, "NOT_FOUND"));
    assert_eq!(refused(api.get(&format!("/sse/web/{bob}?ticket={spent}"))).await, is(401, "UNAUTHORIZED"));
    assert_eq!(refused(live(&api, jane, &jwt)).await, is(404, "NOT_FOUND"));
    for ticket in ["", "x", "dGVuYW50.AAAA"] {
        assert_eq!(
            refused(api.get(&format!("/sse/web/{bob}?ticket={ticket}"))).await,
            is(401, "UNAUTHORIZED")
        );
    }
    assert_eq!(refused(api.get(&format!("/sse/web/{bob}"))).await, is(401, "UNAUTHORIZED"));
    assert_eq!(refused(api.post("/api/sse/ticket", &json!({}))).await, is(401, "UNAUTHORIZED"));
}

#[tokio::test]
async fn a_ticket_is_worth_nothing_after_half_a_minute() {
    let api = Api::with(QUICK).await;
    let (bob, jwt) = api.web_user("bob").await;
    let old = ticket(&api, &jwt).await;
    let mut redis = api.redis_of(Servers::shared().await).await;
    let pattern = format!("posduif:{{{}}}:ticket:*", api.tenant);
    let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
    let left: i64 = redis::cmd("PTTL").arg(&keys[0]).query_async(&mut redis).await.unwrap();
    assert!((1..=30_000).contains(&left) && keys.len() == 1, "{left} {keys:?}");
    // The ticket itself is kept nowhere.
    assert!(!keys[0].contains(&old), "{keys:?}");
    let () = redis::cmd("PEXPIRE").arg((&keys[0], 1)).query_async(&mut redis).await.unwrap();
    eventually_true(Duration::from_secs(5), "the ticket expired", async || {
        Ok(!redis::cmd("EXISTS").arg(&keys[0]).query_async::<bool>(&mut redis).await?)
    })
    .await;
    assert_eq!(refused(api.get(&format!("/sse/web/{bob}?ticket={old}"))).await, is(401, "UNAUTHORIZED"));
}

#[tokio::test]
async fn a_browsers_stream_ends_with_its_log_in() {
    let api = Api::with(QUICK).await;
    let (bob, _) = api.web_user("bob").await;
    let jwt = Jwt::new(SECRET.as_bytes(), 3600);
    let subject = Subject { tenant: api.tenant.clone(), user: bob, log_ins: 0 };
    let short = jwt.issue(&subject, Utc::now() - TimeDelta::seconds(3597)).unwrap();
    // Also where it came in with a ticket.
    let answer = ticket(&api, &short).await;
    let mut by_ticket = Listener::open(api.get(&format!("/sse/web/{bob}?ticket={answer}"))).await;
    let mut web = Listener::open(live(&api, bob, &short)).await;
    assert_eq!(web.rest().await, []);
    assert_eq!(by_ticket.rest().await, []);
}
