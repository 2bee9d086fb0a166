//! What the user of Redis may do.

use std::time::Duration;

use posduif_testkit::{Servers, chaos::Proxy, eventually};

use crate::fixture::{SOON, Tenant};

/// As docs/PROTOCOL.md says.
const RIGHTS: &str = "AUTH CLIENT|ID CLIENT|KILL HELLO SELECT PING INFO TIME EVAL EVALSHA SCRIPT|LOAD GET SET HGET \
                      HGETALL HMGET HSET HDEL HINCRBY DEL UNLINK XADD XRANGE XREVRANGE XLEN XTRIM RENAME SADD SSCAN SCAN \
                      ZADD ZRANGE ZREMRANGEBYSCORE EXPIRE";

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_documents_name_are_enough() {
    let mut servers = Servers::private().await;
    let mut tenant = Tenant::create(&servers).await;
    let mut redis = tenant.redis().await;
    let mut user = redis::cmd("ACL");
    user.arg(("SETUSER", "ingester", "reset", "on", ">pw", "~posduif:*"));
    for command in RIGHTS.split_whitespace() {
        user.arg(format!("+{}", command.to_lowercase()));
    }
    let () = user.query_async(&mut redis).await.unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], servers.redis().port()).into()).await;
    tenant.session.redis.url = format!("redis://ingester:pw@{}/0", proxy.address()).parse().unwrap();
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
    drop(running);
    // Without one of them it says so instead of waiting for ever.
    let revoke = redis::cmd("ACL").arg(("SETUSER", "ingester", "-xadd")).to_owned();
    let () = revoke.query_async(&mut redis).await.unwrap();
    let running = tenant.spawn();
    tenant.message(bob, bob, "y").await;
    let reason = running.ended().await;
    assert!(reason.contains("docs/PROTOCOL.md") || reason.contains("xadd"), "{reason}");
    servers.redis_mut().stop().await.unwrap();
}
