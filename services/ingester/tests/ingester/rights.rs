//! What the user of Redis may do.

use std::time::Duration;

use posduif_changelog::{LogReader, Timeouts, pool};
use posduif_testkit::{INGESTER, Servers, TOOL, chaos::Proxy, eventually};

use crate::{
    fixture::{SOON, Tenant},
    receiver::{Call, Receiver},
};

#[tokio::test(flavor = "multi_thread")]
async fn to_look_at_a_log_takes_no_right_to_change_it() {
    let servers = Servers::private().await;
    let tenant = Tenant::create(&servers).await;
    let _running = tenant.ingest().await;
    // One connection, so that every look checks the one before it.
    let reader =
        LogReader::new(pool(servers.redis_url_of(TOOL), 1, Timeouts::default()).unwrap(), tenant.id());
    let state = reader.state().await.unwrap().unwrap();
    reader.survey(&state.epoch).await.unwrap();
    reader.concerns().await.unwrap();
}

/// A commit whose users are read from a set.
async fn many_are_told(tenant: &Tenant, receiver: &Receiver) {
    let add = "INSERT INTO users (username) SELECT 'u' || n FROM generate_series(1, 1100) n";
    let write = "INSERT INTO messages (sender_id, recipient_id, content) SELECT id, id, 'x' FROM users";
    tenant.client.batch_execute(add).await.unwrap();
    tenant.client.batch_execute(write).await.unwrap();
    let in_parts = |calls: &[Call]| {
        let mut commits = calls.iter().filter(|call| call.taken).flat_map(Call::commits);
        commits.any(|commit| commit["more"] == false).then_some(())
    };
    receiver.until("a commit in parts", in_parts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_are_shipped_are_enough() {
    let mut servers = Servers::private().await;
    let mut tenant = Tenant::create(&servers).await;
    let mut redis = tenant.redis().await;
    let receiver = Receiver::start().await;
    tenant.calls(&receiver, "");
    let proxy = Proxy::start(([127, 0, 0, 1], servers.redis().port()).into()).await;
    tenant.session.redis.url = servers.redis_url_at(INGESTER, proxy.address()).parse().unwrap();
    tenant.session.retention.interval = Duration::from_millis(50);
    tenant.session.retention.compact_entries = 100;
    tenant.session.retention.max_bytes = 500_000;
    let running = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    let first = tenant.caught_up().await;
    for n in 0..300 {
        tenant.message(bob, bob, &format!("{n} {}", "x".repeat(1_000))).await;
        if n % 100 == 50 {
            proxy.cut_all();
        }
    }
    let state = eventually(SOON, "the log is trimmed and compacted", async || {
        let state = tenant.caught_up().await;
        Ok((state.floor > first.watermark.commit && state.compacted > state.base).then_some(state))
    })
    .await;
    assert_eq!(state.epoch, first.epoch);
    receiver.has(1).await;
    many_are_told(&tenant, &receiver).await;
    drop(running);
    // Without one of them it says so instead of waiting for ever.
    let revoke = redis::cmd("ACL").arg(("SETUSER", INGESTER, "-xadd")).to_owned();
    let () = revoke.query_async(&mut redis).await.unwrap();
    let running = tenant.spawn();
    tenant.message(bob, bob, "y").await;
    let reason = running.ended().await;
    assert!(reason.contains("deploy/redis/users.acl") || reason.contains("xadd"), "{reason}");
    servers.redis_mut().stop().await.unwrap();
}
