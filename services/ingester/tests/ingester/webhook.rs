//! The webhook: whom each commit concerns, told in order, signed, and again until it is taken.

use std::{collections::BTreeSet, time::Duration};

use posduif_model::UserId;
use posduif_testkit::Servers;
use serde_json::Value;

use crate::{
    fixture::{Running, Tenant},
    receiver::{Call, Mode, Receiver, SECRET, signature},
};

pub async fn calling(keys: &str) -> (Tenant, Receiver) {
    let (mut tenant, receiver) = (Tenant::create(Servers::shared().await).await, Receiver::start().await);
    tenant.calls(&receiver, keys);
    (tenant, receiver)
}

/// The same with its ingester, once the telling has begun.
pub async fn begun(keys: &str) -> (Tenant, Receiver, Running) {
    let (tenant, receiver) = calling(keys).await;
    let running = tenant.ingest().await;
    receiver.skipped(1).await;
    (tenant, receiver, running)
}

pub fn users(commit: &Value) -> BTreeSet<String> {
    commit["users"].as_array().unwrap().iter().map(|user| user.as_str().unwrap().to_owned()).collect()
}

pub fn of(users: &[UserId]) -> BTreeSet<String> {
    users.iter().map(UserId::to_string).collect()
}

/// The commits' own ids, in the order of the calls, each once.
pub fn ids(commits: &[Value]) -> Vec<String> {
    let mut ids: Vec<String> =
        commits.iter().map(|commit| commit["id"].as_str().unwrap().to_owned()).collect();
    ids.dedup();
    ids
}

/// LSNs ascend, so none is told twice or late.
pub fn ascend(commits: &[Value]) -> bool {
    let lsns: Vec<u64> =
        ids(commits).iter().map(|id| id.split_once('-').unwrap().1.parse().unwrap()).collect();
    lsns.is_sorted_by(|a, b| a < b)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_commit_is_told_once_in_order_and_signed_with_whom_it_concerns() {
    let (tenant, receiver, _running) = begun("").await;
    let (ann, bob, eve) = (tenant.user("Ann").await, tenant.user("Bob").await, tenant.user("Eve").await);
    for n in 0..20 {
        tenant.message(ann, if n % 2 == 0 { bob } else { eve }, &format!("canary {n}")).await;
    }
    let commits = receiver.has(20).await;
    let last = tenant.caught_up().await;
    for (n, commit) in commits.iter().enumerate() {
        assert_eq!(users(commit), of(&[ann, if n % 2 == 0 { bob } else { eve }]), "{commit}");
        assert_eq!((&commit["origin"], &commit["shared"]), (&Value::Null, &true.into()), "{commit}");
        assert!(commit["id"].as_str().unwrap().starts_with(&format!("{}-", last.epoch)), "{commit}");
        chrono::DateTime::parse_from_rfc3339(commit["committed_at"].as_str().unwrap()).unwrap();
    }
    assert!(ascend(&commits), "{commits:?}");
    let mut seen = BTreeSet::new();
    for call in receiver.calls() {
        assert_eq!(call.path, "/hook");
        assert_eq!(call.headers["content-type"], "application/json");
        assert_eq!(call.headers["webhook-signature"], signature(SECRET, &call));
        assert!(seen.insert(call.headers["webhook-id"].clone()), "an id was used twice");
        let said = String::from_utf8(call.body.clone()).unwrap();
        assert!(!said.contains("canary") && !said.contains("Ann"), "{said}");
        assert_eq!(call.json()["tenant_id"], tenant.id().as_str());
    }
    let connections: BTreeSet<usize> = receiver.calls().iter().map(|call| call.connection).collect();
    assert_eq!(connections.len(), 1, "every call made a connection of its own");
    // Heartbeats and what only everyone sees went by meanwhile, and nothing came of them.
    assert_eq!(receiver.commits().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_everyone_sees_is_told_only_where_it_is_asked_for() {
    let (tenant, receiver, _running) = begun(", shared: true").await;
    let ann = tenant.user("Ann").await;
    let told = receiver.has(1).await;
    assert_eq!((users(&told[0]), &told[0]["shared"]), (BTreeSet::new(), &true.into()));
    tenant.message(ann, ann, "x").await;
    assert_eq!(users(&receiver.has(2).await[1]), of(&[ann]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_that_wrote_is_named_so_that_it_need_not_be_woken() {
    let (mut tenant, receiver, _running) = begun("").await;
    let ann = tenant.user("Ann").await;
    let upload = tenant.client.transaction().await.unwrap();
    upload.execute("SELECT pg_logical_emit_message(true, 'posduif.origin', 'phone-1')", &[]).await.unwrap();
    let insert = "INSERT INTO messages (sender_id, recipient_id, content) VALUES ($1, $1, 'x')";
    upload.execute(insert, &[&ann.uuid()]).await.unwrap();
    upload.commit().await.unwrap();
    assert_eq!(receiver.has(1).await[0]["origin"], "phone-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_was_away_gets_everything_in_order_and_each_call_under_one_id() {
    let (tenant, mut receiver, _running) = begun(", batch: 7").await;
    let ann = tenant.user("Ann").await;
    tenant.message(ann, ann, "before").await;
    receiver.has(1).await;
    receiver.set(Mode::Answer(503, String::new()));
    for n in 0..10 {
        tenant.message(ann, ann, &format!("refused {n}")).await;
    }
    let refused = receiver
        .until("two refusals", |calls| {
            let refused: Vec<_> = calls.iter().filter(|call| !call.taken).cloned().collect();
            (refused.len() >= 2).then_some(refused)
        })
        .await;
    assert_eq!(refused[0].headers["webhook-id"], refused[1].headers["webhook-id"]);
    assert_eq!(refused[0].body, refused[1].body);
    assert_eq!(refused[1].headers["webhook-signature"], signature(SECRET, &refused[1]));
    receiver.stop();
    for n in 0..50 {
        tenant.message(ann, ann, &format!("away {n}")).await;
    }
    tenant.caught_up().await;
    receiver.set(Mode::Take);
    receiver.start_again().await;
    let commits = receiver.has(61).await;
    assert!(ascend(&commits) && commits.len() == 61, "{}", commits.len());
    let calls = receiver.taken();
    assert!(calls.iter().all(|call| call.commits().len() <= 7));
    assert!(calls.iter().any(|call| call.commits().len() == 7), "it was behind and took no batch");
    assert!(calls.iter().all(|call| call.json()["skipped"] == false));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_judged_by_its_status_however_long_it_is() {
    let (tenant, receiver, _running) = begun(", timeout: 60s").await;
    let ann = tenant.user("Ann").await;
    let since = tokio::time::Instant::now();
    receiver.set(Mode::Endless(202));
    for n in 0..3 {
        tenant.message(ann, ann, &n.to_string()).await;
        assert!(ascend(&receiver.has(n + 1).await));
    }
    // Read to its end, each would take as long as a call may.
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    assert_eq!(receiver.commits().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let (elsewhere, (tenant, receiver, _running)) = tokio::join!(Receiver::start(), begun(""));
    let ann = tenant.user("Ann").await;
    receiver.set(Mode::Answer(307, format!("location: {}\r\n", elsewhere.url("/stolen"))));
    tenant.message(ann, ann, "x").await;
    receiver
        .until("two redirects", |calls| (calls.iter().filter(|call| !call.taken).count() >= 2).then_some(()))
        .await;
    assert!(elsewhere.calls().is_empty());
    receiver.set(Mode::Take);
    receiver.has(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_asks_for_time_gets_it() {
    let (tenant, receiver, _running) = begun("").await;
    let ann = tenant.user("Ann").await;
    receiver.set(Mode::Answer(429, "retry-after: 4\r\n".to_owned()));
    tenant.message(ann, ann, "x").await;
    let refused = |calls: &[Call]| calls.iter().filter(|call| !call.taken).count();
    receiver.until("a refusal", |calls| (refused(calls) >= 1).then_some(())).await;
    let since = tokio::time::Instant::now();
    receiver.until("another attempt", |calls| (refused(calls) >= 2).then_some(())).await;
    // Without the header the second attempt comes within a second.
    assert!(since.elapsed() > Duration::from_millis(3_500), "{:?}", since.elapsed());
    receiver.set(Mode::Take);
    receiver.has(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_concerns_very_many_is_told_in_parts() {
    let (tenant, receiver, _running) = begun("").await;
    let sql = "INSERT INTO users (username) SELECT 'u' || n FROM generate_series(1, 2500) n";
    tenant.client.batch_execute(sql).await.unwrap();
    let to_all = "INSERT INTO messages (sender_id, recipient_id, content) SELECT id, id, 'x' FROM users";
    tenant.client.batch_execute(to_all).await.unwrap();
    let ann = tenant.user("Ann").await;
    tenant.message(ann, ann, "after").await;
    receiver
        .until("what comes after", |calls| {
            let said = |call: &Call| call.commits().iter().any(|c| users(c) == of(&[ann]));
            calls.iter().any(said).then_some(())
        })
        .await;
    let commits = receiver.commits();
    let (parts, rest): (Vec<Value>, Vec<Value>) = commits.into_iter().partition(|c| c.get("part").is_some());
    assert_eq!((parts.len() >= 3, rest.len()), (true, 1), "{} parts", parts.len());
    assert!(parts.iter().all(|part| users(part).len() <= 1_000 && part["id"] == parts[0]["id"]));
    for (n, part) in parts.iter().enumerate() {
        assert_eq!((&part["part"], &part["more"]), (&n.into(), &(n + 1 < parts.len()).into()));
    }
    assert!(parts.iter().any(|part| part["shared"] == true));
    let named: BTreeSet<String> = parts.iter().flat_map(users).collect();
    assert_eq!(named.len(), 2_500);
    assert!(receiver.calls().iter().all(|call| call.body.len() < 64 << 10));
}
