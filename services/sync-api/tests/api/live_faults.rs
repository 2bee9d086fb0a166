//! Live connections while Redis loses hints or goes away, and when their replica stops.

use std::time::{Duration, Instant};

use posduif_model::Bucket;
use posduif_testkit::{Servers, eventually_true};
use serde_json::json;

use crate::{
    fixture::{Api, is, refused},
    listener::Listener,
    live::message,
};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_lost_subscription_delays_news_and_loses_none() {
    let servers = Servers::private().await;
    let api = Api::on(&servers, "api: {sse: {look_interval: 300ms}}").await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let mut live = api.listen(&ann).await;
    let mut redis = api.redis_of(&servers).await;
    // Whoever connects anew is refused, so no hint comes.
    let mut acl = redis::cmd("ACL");
    let () = acl.arg(("SETUSER", posduif_testkit::API, "-subscribe")).query_async(&mut redis).await.unwrap();
    let killed: u64 =
        redis::cmd("CLIENT").arg(("KILL", "TYPE", "pubsub")).query_async(&mut redis).await.unwrap();
    assert_eq!(killed, 1, "one subscription per replica");
    for id in ["m1", "m2"] {
        let change = message(id, bob, ann.user, "pending_sync");
        api.commit(None, &[Bucket::User(ann.user)], &[change]).await;
        live.expect_message(id).await;
    }
    let mut acl = redis::cmd("ACL");
    let () = acl.arg(("SETUSER", posduif_testkit::API, "+subscribe")).query_async(&mut redis).await.unwrap();
    eventually_true(SOON, "the replica subscribes again", async || {
        let list: String =
            redis::cmd("CLIENT").arg(("LIST", "TYPE", "pubsub")).query_async(&mut redis).await?;
        Ok(list.lines().count() == 1)
    })
    .await;
}

#[tokio::test]
async fn hints_make_news_prompt() {
    let api = Api::with("api: {sse: {look_interval: 60s}}").await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let mut live = api.listen(&ann).await;
    for n in 0..5 {
        let id = format!("m{n}");
        let change = message(&id, bob, ann.user, "pending_sync");
        api.commit(None, &[Bucket::User(ann.user)], &[change]).await;
        live.expect_message(&id).await;
    }
}

#[tokio::test]
async fn connections_outlive_a_restart_of_redis() {
    let mut servers = Servers::private().await;
    let api = Api::on(&servers, "api: {sse: {look_interval: 300ms}}").await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let mut live = api.listen(&ann).await;
    servers.redis_mut().stop().await.unwrap();
    assert_eq!(refused(api.live(&ann)).await, is(503, "REDIS_ERROR"));
    servers.redis_mut().restart().await.unwrap();
    api.log.lock().await.reconnect(&servers, &api.tenant).await;
    let change = message("m1", bob, ann.user, "pending_sync");
    api.commit(None, &[Bucket::User(ann.user)], &[change]).await;
    live.expect_message("m1").await;
}

#[tokio::test]
async fn a_thousand_connections_share_a_few_of_redis() {
    let servers = Servers::private().await;
    let sections = "api: {sse: {max_per_device: 1000, max_per_user: 1000}}";
    let api = Api::on(&servers, sections).await;
    let (bob, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let mut open: Vec<Listener> = Vec::new();
    for _ in 0..40 {
        let some = futures::future::join_all((0..25).map(|_| api.listen(&ann))).await;
        open.extend(some);
    }
    assert_eq!(open.len(), 1_000);
    let change = message("m1", bob, ann.user, "pending_sync");
    api.commit(None, &[Bucket::User(ann.user)], &[change]).await;
    for live in &mut open {
        live.expect_message("m1").await;
    }
    let mut redis = api.redis_of(&servers).await;
    let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut redis).await.unwrap();
    let subscribed = list.lines().filter(|client| client.contains(" sub=1 ")).count();
    // Those of the pool (16), the log's writer and this test's own.
    assert!(subscribed == 1 && list.lines().count() <= 20, "{list}");
}

#[tokio::test]
async fn a_replica_that_stops_sends_its_readers_away_one_after_the_other() {
    let api = Api::with("api: {sse: {max_per_user: 100, max_per_device: 100}}").await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let mut open = Vec::new();
    for _ in 0..60 {
        open.push(api.listen(&ann).await);
    }
    let started = Instant::now();
    api.shutdown.cancel();
    let ends = open.into_iter().map(|mut live| async move {
        let rest = live.rest().await;
        (started.elapsed(), rest)
    });
    let ends = futures::future::join_all(ends).await;
    for (_, rest) in &ends {
        let [(name, data)] = rest.as_slice() else { panic!("{rest:?}") };
        assert_eq!((name.as_str(), &data["type"]), ("draining", &json!("draining")));
        assert!((1_000..=5_000).contains(&data["retry_ms"].as_u64().unwrap()), "{data}");
    }
    let (first, last) = (ends.iter().map(|end| end.0).min(), ends.iter().map(|end| end.0).max());
    assert!(last.unwrap() - first.unwrap() >= Duration::from_millis(300), "{first:?} {last:?}");
    eventually_true(SOON, "the port is closed", async || Ok(api.get("/health").send().await.is_err())).await;
}

#[tokio::test]
async fn a_program_with_open_streams_stops_in_time_and_in_order() {
    let api = Api::start().await;
    let mut program = api.program("").await;
    program.until(200, "the replica is ready").await;
    let (_, jwt) = api.web_user("bob").await;
    let ann = api.phone(&jwt, "ann").await;
    let mut live = Listener::open(crate::listener::live_at(&program.base, &ann)).await;
    let metrics = reqwest::get(format!("{}/metrics", program.admin)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"posduif_api_sse_connections{kind="mobile"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"posduif_api_sse_events_total{event="connected"} 1"#), "{metrics}");
    assert_eq!(program.process.terminate(Duration::from_secs(15)).await, 0, "{}", program.process.log());
    assert_eq!(live.rest().await.len(), 1);
}
