//! What the user of Redis may do.

use std::time::Duration;

use posduif_changelog::{LogReader, Timeouts, pool};
use posduif_testkit::{Servers, chaos::Proxy, eventually};
use redis::aio::MultiplexedConnection;

use crate::{
    fixture::{SOON, Tenant},
    receiver::{Call, Receiver},
};

/// As docs/PROTOCOL.md says.
const RIGHTS: &str = "AUTH CLIENT|ID CLIENT|KILL HELLO SELECT PING INFO TIME EVAL EVALSHA SCRIPT|LOAD GET SET HGET \
                      HGETALL HMGET HSET HDEL HINCRBY DEL UNLINK XADD XRANGE XREVRANGE XLEN XTRIM RENAME SADD SSCAN SCAN \
                      ZADD ZRANGE ZREMRANGEBYSCORE EXPIRE";

/// Besides those, with a webhook.
const CALLING: &str = "UNWATCH";

/// Of `posduif status`.
const LOOKING: &str = "AUTH HELLO SELECT PING UNWATCH TIME INFO HGETALL XRANGE XREVRANGE XLEN ZRANGE";

async fn allow(redis: &mut MultiplexedConnection, name: &str, rights: &str) {
    let mut user = redis::cmd("ACL");
    user.arg(("SETUSER", name, "reset", "on", ">pw", "~posduif:*"));
    for command in rights.split_whitespace() {
        user.arg(format!("+{}", command.to_lowercase()));
    }
    let () = user.query_async(redis).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn to_look_at_a_log_takes_no_right_to_change_it() {
    let servers = Servers::private().await;
    let tenant = Tenant::create(&servers).await;
    let _running = tenant.ingest().await;
    allow(&mut tenant.redis().await, "operator", LOOKING).await;
    let url = format!("redis://operator:pw@127.0.0.1:{}/0", servers.redis().port());
    // One connection, so that every look checks the one before it.
    let reader = LogReader::new(pool(url, 1, Timeouts::default()).unwrap(), tenant.id());
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
async fn the_rights_that_the_documents_name_are_enough() {
    let mut servers = Servers::private().await;
    let mut tenant = Tenant::create(&servers).await;
    let mut redis = tenant.redis().await;
    let receiver = Receiver::start().await;
    tenant.calls(&receiver, "");
    allow(&mut redis, "ingester", &format!("{RIGHTS} {CALLING}")).await;
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
    receiver.has(1).await;
    many_are_told(&tenant, &receiver).await;
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
