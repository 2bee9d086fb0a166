//! `/sse/mobile`: what wakes a device, and from where it goes on.

use std::time::{Duration, Instant};

use posduif_model::{Bucket, Change, Epoch, UserId};
use serde_json::json;

use crate::{
    fixture::{Api, By, Phone, insert_lsn, is, ok, put, refused},
    listener::{Listener, bytes_until},
};

/// Intervals short enough for tests; those of shared changes are long where a test does not say otherwise.
pub const QUICK: &str = "api: {sse: {ping_interval: 200ms, shared_interval: 60s}}";

pub fn message(id: &str, from: UserId, to: UserId, status: &str) -> Change {
    let row = json!({"id": id, "sender_id": from, "recipient_id": to, "content": "c", "status": status});
    put("messages", json!({"id": id}), row)
}

pub fn user_row(id: &str) -> Change {
    put("users", json!({"id": id}), json!({"id": id}))
}

async fn ann(api: &Api) -> (UserId, Phone) {
    let (bob, jwt) = api.web_user("bob").await;
    (bob, api.phone(&jwt, "ann").await)
}

#[tokio::test]
async fn a_device_hears_of_each_message_and_of_other_changes_as_they_become_visible() {
    let api = Api::with(QUICK).await;
    let (bob, ann) = ann(&api).await;
    let mine = [Bucket::User(ann.user)];
    let mut live = api.listen(&ann).await;
    let pending = |id: &str| message(id, bob, ann.user, "pending_sync");
    api.commit(None, &mine, &[pending("m1"), pending("m2")]).await;
    live.expect_message("m1").await;
    live.expect_message("m2").await;
    // Another user's, and a heartbeat's transaction, wake nobody here.
    api.commit(None, &[Bucket::User(bob)], &[pending("m3")]).await;
    api.commit(None, &[], &[]).await;
    api.commit(None, &mine, &[put("tasks", json!({"id": 1}), json!({"id": 1}))]).await;
    assert_eq!(live.expect("sync_required").await, json!({"type": "sync_required", "pending_count": 1}));
    // Confirmed already, or sent by this user: something to fetch, no new message.
    api.commit(None, &mine, &[message("m1", bob, ann.user, "synced")]).await;
    live.expect("sync_required").await;
    api.commit(None, &mine, &[message("m4", ann.user, bob, "synced")]).await;
    live.expect("sync_required").await;
}

#[tokio::test]
async fn a_devices_own_upload_is_something_to_fetch_and_news_for_the_users_other_devices() {
    let api = Api::with(QUICK).await;
    let (_, jwt) = api.web_user("bob").await;
    let phone = api.phone(&jwt, "ann").await;
    let token = api.enrollment_token(&jwt, &json!({"username": "ann"})).await;
    let answer = ok(api.complete(&token, "tablet", "ann")).await;
    let tablet = Phone {
        id: "tablet".into(),
        token: answer["device_token"].as_str().unwrap().into(),
        ..phone.clone()
    };
    let (mut here, mut there) = (api.listen(&phone).await, api.listen(&tablet).await);
    let note = message("m1", phone.user, phone.user, "pending_sync");
    api.commit(Some(&phone), &[Bucket::User(phone.user)], &[note]).await;
    there.expect_message("m1").await;
    here.expect("sync_required").await;
}

#[tokio::test]
async fn what_a_hint_names_as_its_place_brings_everything_that_was_hinted() {
    let api = Api::with(QUICK).await;
    let (bob, ann) = ann(&api).await;
    let mut live = api.listen(&ann).await;
    for id in ["m1", "m2"] {
        let change = message(id, bob, ann.user, "pending_sync");
        api.commit(None, &[Bucket::User(ann.user)], &[change]).await;
        live.expect_message(id).await;
    }
    let page = ok(api.incoming(&ann, &live.id, 100)).await;
    assert_eq!(crate::fixture::pluck(&page["messages"], "id"), ["m1", "m2"]);
}

#[tokio::test]
async fn who_comes_back_with_the_last_event_is_told_that_something_was_missed() {
    let api = Api::with(QUICK).await;
    let (bob, ann) = ann(&api).await;
    let begun = api.listen(&ann).await;
    let mine = [Bucket::User(ann.user)];
    let (cursor, change) = (begun.cursor.clone(), message("m1", bob, ann.user, "pending_sync"));
    drop(begun);
    api.commit(None, &mine, std::slice::from_ref(&change)).await;
    api.commit(None, &[Bucket::Shared], &[user_row("u1")]).await;
    let missed = json!({"type": "sync_required", "pending_count": 2});
    let mut live = Listener::open(api.live(&ann).header("Last-Event-ID", &cursor)).await;
    assert_eq!(live.cursor, cursor);
    assert_eq!(live.expect("sync_required").await, missed);
    let mut live = Listener::open(api.live_with(&ann, &format!("since={cursor}"))).await;
    assert_eq!(live.expect("sync_required").await, missed);

    // The header wins; and where nothing was missed, nothing is told before the next change.
    let now = ok(api.incoming(&ann, &cursor, 100)).await["cursor"].as_str().unwrap().to_owned();
    let both = api.live_with(&ann, &format!("since={cursor}")).header("Last-Event-ID", &now);
    let mut live = Listener::open(both).await;
    assert_eq!(live.cursor, now);
    api.commit(None, &mine, &[message("m2", bob, ann.user, "pending_sync")]).await;
    live.expect_message("m2").await;
    // Without a place, too.
    let mut live = api.listen(&ann).await;
    api.commit(None, &mine, &[message("m3", bob, ann.user, "pending_sync")]).await;
    live.expect_message("m3").await;
}

#[tokio::test]
async fn a_place_that_is_gone_is_a_resync_and_the_stream_goes_on() {
    let api = Api::with(QUICK).await;
    let (bob, ann) = ann(&api).await;
    let mut live = api.listen(&ann).await;
    let old = live.cursor.clone();
    let at = insert_lsn(&api.sql).await;
    let rules = posduif_model::rule::RuleSet::new(&[]).unwrap();
    api.log.lock().await.open(7, at, rules.hash().as_str(), None).await;
    assert_ne!(api.log.lock().await.epoch, Epoch::from_random(2));
    assert_eq!(live.expect("resync").await, json!({"type": "resync"}));
    let mut resumed = Listener::open(api.live(&ann).header("Last-Event-ID", &old)).await;
    resumed.expect("resync").await;
    let mut forged = Listener::open(api.live(&ann).header("Last-Event-ID", "nonsense")).await;
    forged.expect("resync").await;
    let change = message("m1", bob, ann.user, "pending_sync");
    api.commit(None, &[Bucket::User(ann.user)], &[change]).await;
    for mut live in [live, resumed, forged] {
        live.expect_message("m1").await;
    }
}

#[tokio::test]
async fn a_device_in_the_middle_of_a_snapshot_is_told_to_go_on_with_it() {
    let api = Api::with(QUICK).await;
    let (_, ann) = ann(&api).await;
    let page = ok(api.incoming(&ann, "start", 1)).await;
    let cursor = page["cursor"].as_str().unwrap();
    let mut live = Listener::open(api.live_with(&ann, &format!("since={cursor}&payload=full"))).await;
    assert_eq!(live.cursor, cursor);
    live.expect("sync_required").await;
    assert_eq!(live.id, cursor);
}

#[tokio::test]
async fn a_stream_is_plain_passed_on_at_once_and_kept_alive() {
    let api = Api::with(QUICK).await;
    let (_, ann) = ann(&api).await;
    let response = api.live(&ann).header("Accept-Encoding", "gzip, br, zstd").send().await.unwrap();
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-store, no-transform");
    assert_eq!(headers["x-accel-buffering"], "no");
    assert!(!headers.contains_key("content-encoding") && headers.contains_key("x-request-id"), "{headers:?}");
    let text = bytes_until(response, "\n\n: ping\n\n").await;
    let retry = text.strip_prefix("retry: ").and_then(|rest| rest.split('\n').next()).unwrap();
    assert!((1_000..=5_000).contains(&retry.parse::<u64>().unwrap()), "{text}");
    assert!(text.contains("\n\nid: "), "{text}");
}

#[tokio::test]
async fn a_device_listens_as_itself_only() {
    let api = Api::with(QUICK).await;
    let (_, jwt) = api.web_user("bob").await;
    let (ann, ben) = (api.phone(&jwt, "ann").await, api.phone(&jwt, "ben").await);
    assert_eq!(refused(api.get(&format!("/sse/mobile/{}", ann.id))).await, is(401, "UNAUTHORIZED"));
    let other = api.get(&format!("/sse/mobile/{}", ann.id)).by(&ben);
    assert_eq!(refused(other).await, is(404, "NOT_FOUND"));
    let web = api.get(&format!("/sse/mobile/{}", ann.id)).bearer_auth(&jwt);
    assert_eq!(refused(web).await, is(401, "UNAUTHORIZED"));
    let odd = api.live_with(&ann, "payload=half");
    assert_eq!(refused(odd).await, is(400, "VALIDATION_ERROR"));
}

#[tokio::test]
async fn a_connection_beyond_a_limit_is_refused_and_none_is_ended_for_it() {
    let sections = "api: {sse: {max_connections: 3, max_per_device: 2, ping_interval: 50ms}}";
    let api = Api::with(sections).await;
    let (bob, jwt) = api.web_user("bob").await;
    let (ann, ben) = (api.phone(&jwt, "ann").await, api.phone(&jwt, "ben").await);
    let mut first = api.listen(&ann).await;
    let second = api.listen(&ann).await;
    assert_eq!(refused(api.live(&ann)).await, is(503, "SYNC_ERROR"));
    let _third = api.listen(&ben).await;
    assert_eq!(refused(api.live(&ben)).await, is(503, "SYNC_ERROR"));
    let change = message("m1", bob, ann.user, "pending_sync");
    api.commit(None, &[Bucket::User(ann.user)], &[change]).await;
    first.expect_message("m1").await;
    // The next write to a reader that went away fails, and its place is free.
    drop(second);
    let again = posduif_testkit::eventually(Duration::from_secs(20), "a place is free again", async || {
        let response = api.live(&ann).send().await?;
        Ok((response.status() == 200).then_some(response))
    });
    Listener::of(again.await).await;
}

#[tokio::test]
async fn events_that_find_no_room_become_one_hint() {
    let api = Api::with("api: {sse: {buffer: 4, shared_interval: 60s}}").await;
    let (bob, ann) = ann(&api).await;
    let mut live = api.listen(&ann).await;
    let mine = [Bucket::User(ann.user)];
    let many: Vec<Change> =
        (0..9).map(|n| message(&format!("m{n}"), bob, ann.user, "pending_sync")).collect();
    api.commit(None, &mine, &many).await;
    assert_eq!(live.expect("sync_required").await, json!({"type": "sync_required", "pending_count": 9}));
    api.commit(None, &mine, &many[..1]).await;
    live.expect_message("m0").await;
}

#[tokio::test]
async fn what_everyone_sees_wakes_a_connection_once_per_interval() {
    let interval = Duration::from_millis(600);
    let api = Api::with("api: {sse: {shared_interval: 600ms}}").await;
    let (_, ann) = ann(&api).await;
    let mut live = api.listen(&ann).await;
    let mut heard = Vec::new();
    let mut pending = 0;
    for n in 0..40 {
        api.commit(None, &[Bucket::Shared], &[user_row(&format!("u{n}"))]).await;
    }
    while pending < 40 {
        pending += live.expect("sync_required").await["pending_count"].as_u64().unwrap();
        heard.push(Instant::now());
    }
    assert_eq!(pending, 40);
    // Arrivals may bunch up a little on the way.
    let gaps: Vec<Duration> = heard.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap > interval / 2), "{gaps:?}");
}

#[tokio::test]
async fn a_hint_of_the_users_own_changes_covers_what_everyone_sees() {
    let api = Api::with("api: {sse: {shared_interval: 500ms}}").await;
    let (bob, ann) = ann(&api).await;
    let mut live = api.listen(&ann).await;
    let both = [Bucket::User(ann.user), Bucket::Shared];
    for id in ["m0", "m1", "m2"] {
        api.commit(None, &both, &[message(id, bob, ann.user, "pending_sync")]).await;
        live.expect_message(id).await;
    }
    api.commit(None, &[Bucket::Shared], &[user_row("u1")]).await;
    assert_eq!(live.expect("sync_required").await["pending_count"], 1);
}
