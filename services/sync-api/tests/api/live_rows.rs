//! `payload=full`: rows as events, the very pages that a sync would get.

use std::time::Duration;

use posduif_model::{Bucket, Change};
use posduif_testkit::eventually_true;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    fixture::{Api, Phone, insert_lsn, ok, pluck, put},
    listener::Listener,
    live::{QUICK, message, user_row},
};

async fn ann(api: &Api) -> Phone {
    let (_, jwt) = api.web_user("bob").await;
    api.phone(&jwt, "ann").await
}

async fn rows(api: &Api, phone: &Phone, since: &str) -> Listener {
    Listener::open(api.live_with(phone, &format!("payload=full&since={since}"))).await
}

/// A page without what differs from one answer to the next.
fn lasting(mut page: Value) -> Value {
    page.as_object_mut().unwrap().remove("sync_timestamp");
    page
}

async fn synced(api: &Api, phone: &Phone) -> String {
    api.snapshot(phone, 100).await.last().unwrap()["cursor"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_event_holds_the_page_that_a_sync_would_get_and_its_id_is_the_cursor() {
    let api = Api::with(QUICK).await;
    let ann = ann(&api).await;
    let cursor = synced(&api, &ann).await;
    let mut live = rows(&api, &ann, &cursor).await;
    let mine = [Bucket::User(ann.user)];
    let note = message("m1", ann.user, ann.user, "synced");
    let task = put("tasks", json!({"id": 1}), json!({"id": 1}));
    api.commit(Some(&ann), &mine, &[note, task]).await;
    let first = live.expect("change").await;
    assert_eq!((&first["messages"][0]["own"], &first["changes"][0]["key"]["id"]), (&json!(true), &json!(1)));
    assert_eq!(lasting(first.clone()), lasting(ok(api.incoming(&ann, &cursor, 100)).await));
    assert_eq!(first["cursor"], live.id);
    api.commit(None, &mine, &[message("m2", ann.user, ann.user, "synced")]).await;
    let second = live.expect("change").await;
    assert_eq!(pluck(&second["messages"], "id"), ["m2"]);
    // What was missed comes as rows, too, from exactly where the reader was.
    let resumed =
        api.live_with(&ann, "payload=full").header("Last-Event-ID", first["cursor"].as_str().unwrap());
    let again = Listener::open(resumed).await.expect("change").await;
    assert_eq!(lasting(again), lasting(second));
}

#[tokio::test]
async fn pages_follow_each_other_until_everything_was_sent() {
    let api = Api::with(&format!("{QUICK}\nsync: {{batch_size: 2}}")).await;
    let ann = ann(&api).await;
    let cursor = synced(&api, &ann).await;
    for n in 0..5 {
        let note = message(&format!("m{n}"), ann.user, ann.user, "synced");
        api.commit(None, &[Bucket::User(ann.user)], &[note]).await;
    }
    let mut live = rows(&api, &ann, &cursor).await;
    let (mut ids, mut pages) = (Vec::new(), 0);
    while ids.len() < 5 {
        let page = live.expect("change").await;
        ids.extend(pluck(&page["messages"], "id").into_iter().map(str::to_owned));
        pages += 1;
        assert_eq!(page["has_more"], ids.len() < 5);
    }
    assert_eq!((ids, pages), (["m0", "m1", "m2", "m3", "m4"].map(String::from).to_vec(), 3));
}

#[tokio::test]
async fn changes_that_everyone_sees_come_in_their_turn_and_others_bring_nothing() {
    let api = Api::with("api: {sse: {shared_interval: 200ms}}").await;
    let ann = ann(&api).await;
    let cursor = synced(&api, &ann).await;
    let mut live = rows(&api, &ann, &cursor).await;
    let stranger = Bucket::User("00000000-0000-0000-0000-000000000009".parse().unwrap());
    api.commit(None, &[stranger], &[message("m1", ann.user, ann.user, "synced")]).await;
    api.commit(None, &[Bucket::Shared], &[user_row("u1")]).await;
    let page = live.expect("change").await;
    assert_eq!((pluck(&page["users"], "id"), page["messages"].as_array().unwrap().len()), (vec!["u1"], 0));
}

#[tokio::test]
async fn a_page_too_large_for_an_event_is_left_to_a_sync_and_so_is_what_follows() {
    let api = Api::with("api: {sse: {max_page_bytes: 2000, shared_interval: 60s}}").await;
    let ann = ann(&api).await;
    let cursor = synced(&api, &ann).await;
    let mut live = rows(&api, &ann, &cursor).await;
    let mine = [Bucket::User(ann.user)];
    let large = put("tasks", json!({"id": 1}), json!({"id": 1, "text": "x".repeat(2_000)}));
    api.commit(None, &mine, &[large]).await;
    live.expect("sync_required").await;
    // A row after it would tear a hole.
    api.commit(None, &mine, &[message("m1", ann.user, ann.user, "pending_sync")]).await;
    live.expect_message("m1").await;
    assert_eq!(live.id, cursor);
    let page = ok(api.incoming(&ann, &live.id, 100)).await;
    assert_eq!((page["changes"].as_array().unwrap().len(), pluck(&page["messages"], "id")), (1, vec!["m1"]));
}

#[tokio::test]
async fn after_a_resync_no_rows_come_until_the_reader_has_begun_again() {
    let api = Api::with(QUICK).await;
    let ann = ann(&api).await;
    let cursor = synced(&api, &ann).await;
    let mut live = rows(&api, &ann, &cursor).await;
    let rules = posduif_model::rule::RuleSet::new(&[]).unwrap();
    let at = insert_lsn(&api.sql).await;
    api.log.lock().await.open(7, at, rules.hash().as_str(), None).await;
    live.expect("resync").await;
    let change: Change = message("m1", ann.user, ann.user, "pending_sync");
    api.commit(None, &[Bucket::User(ann.user)], &[change]).await;
    live.expect_message("m1").await;
}

#[tokio::test]
async fn rows_that_were_only_sent_have_not_arrived_before_the_reader_says_so() {
    let api = Api::with(QUICK).await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let cursor = synced(&api, &ann).await;
    let mut live = rows(&api, &ann, &cursor).await;
    let mine = [Bucket::User(ann.user)];
    let mut ids: Vec<Uuid> = Vec::new();
    for content in ["a", "b"] {
        let id = api.message(bob, ann.user, content).await;
        api.commit(None, &mine, &[message(&id.to_string(), bob, ann.user, "pending_sync")]).await;
        live.expect("change").await;
        ids.push(id);
    }
    let pending = async || {
        let sql = "SELECT count(*) FROM messages WHERE id = ANY ($1) AND status = 'pending_sync'";
        api.sql.query_one(sql, &[&ids]).await.unwrap().get::<_, i64>(0)
    };
    assert_eq!(pending().await, 2);
    // The newest event's id proves all that came before it on the stream.
    let resumed = api.live_with(&ann, "payload=full").header("Last-Event-ID", &live.id);
    let _again = Listener::open(resumed).await;
    eventually_true(Duration::from_secs(20), "both messages have arrived", async || Ok(pending().await == 0))
        .await;
}
