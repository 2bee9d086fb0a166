//! P3: what PostgreSQL may forget, and what a fail-over of Redis takes away.

use std::time::Duration;

use posduif_changelog::Keys;
use posduif_testkit::{Servers, chaos::Proxy, eventually};

use crate::fixture::{SOON, Tenant};

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_forgets_only_what_redis_has_on_disk() {
    let servers = Servers::private().await;
    let mut tenant = Tenant::create(&servers).await;
    tenant.session.wal.confirm_delay = Duration::from_secs(600);
    let _running = tenant.ingest().await;
    tenant.user("Bob").await;
    let end = tenant.caught_up().await.watermark.end.to_string();
    let mut redis = tenant.redis().await;
    let known: Vec<redis::Value> =
        redis::cmd("COMMAND").arg(("INFO", "WAITAOF")).query_async(&mut redis).await.unwrap();
    let can_tell = !matches!(known.first(), None | Some(redis::Value::Nil));
    let confirmed = "SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots
                      WHERE database = current_database()";
    let is_confirmed = async || {
        let row = tenant.client.query_one(confirmed, &[&end]).await?;
        Ok(row.get::<_, bool>(0).then_some(()))
    };
    if can_tell {
        // Long before the delay is over.
        eventually(SOON, "the proof is confirmed", is_confirmed).await;
    } else {
        // Without WAITAOF (before Redis 7.2) nothing is confirmed before it is old enough.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(is_confirmed().await.unwrap().is_none());
    }
    let proven: Option<String> = redis::cmd("HGET")
        .arg((Keys::new(tenant.id()).state(), "proven"))
        .query_async(&mut redis)
        .await
        .unwrap();
    assert!(proven.is_some(), "nobody asked Redis");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_keeps_what_it_sent_while_redis_cannot_say_that_it_has_it() {
    let mut servers = Servers::private().await;
    let mut tenant = Tenant::create(&servers).await;
    tenant.session.wal.confirm_delay = Duration::from_secs(2);
    let _running = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    tenant.caught_up().await;
    tenant.message(bob, bob, "not yet on disk").await;
    let end = tenant.caught_up().await.watermark.end.to_string();
    servers.redis_mut().kill9().await;
    // The delay passes while nobody knows what Redis will come back with.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let sql = "SELECT confirmed_flush_lsn < $1::text::pg_lsn FROM pg_replication_slots
                WHERE database = current_database()";
    let kept: bool = tenant.client.query_one(sql, &[&end]).await.unwrap().get(0);
    assert!(kept, "PostgreSQL may forget what a crash of Redis takes away");
    servers.redis_mut().restart().await.unwrap();
    let sql = "SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots
                WHERE database = current_database()";
    eventually(SOON, "what Redis still has is confirmed", async || {
        Ok(tenant.client.query_one(sql, &[&end]).await?.get::<_, bool>(0).then_some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_of_redis_loses_nothing_that_is_not_noticed() {
    for confirmed in [false, true] {
        let (primary, replica) = tokio::join!(Servers::private(), Servers::private());
        let mut tenant = Tenant::create(&primary).await;
        tenant.session.wal.confirm_delay = Duration::from_secs(if confirmed { 0 } else { 600 });
        let link = Proxy::start(([127, 0, 0, 1], primary.redis().port()).into()).await;
        let mut copy = redis::Client::open(replica.redis_url())
            .unwrap()
            .get_multiplexed_async_connection()
            .await
            .unwrap();
        let url = primary.redis_url();
        let (user, password) =
            url.trim_start_matches("redis://").split('@').next().unwrap().split_once(':').unwrap();
        let log_in = redis::cmd("CONFIG").arg(("SET", "masteruser", user, "masterauth", password)).to_owned();
        let () = log_in.query_async(&mut copy).await.unwrap();
        let follow = redis::cmd("REPLICAOF").arg(("127.0.0.1", link.address().port())).to_owned();
        let () = follow.query_async(&mut copy).await.unwrap();
        let running = tenant.ingest().await;
        let bob = tenant.user("Bob").await;
        tenant.message(bob, bob, "replicated").await;
        let before = tenant.caught_up().await;
        let state = Keys::new(tenant.id()).state();
        eventually(SOON, "the replica has it", async || {
            let commit: Option<u64> =
                redis::cmd("HGET").arg((&state, "commit")).query_async(&mut copy).await?;
            Ok((commit >= Some(before.watermark.commit.get())).then_some(()))
        })
        .await;
        link.black_hole(true);
        tenant.message(bob, bob, "lost with the primary").await;
        let after = tenant.caught_up().await;
        if confirmed {
            let sql = "SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots
                        WHERE database = current_database()";
            eventually(SOON, "the slot has forgotten it", async || {
                let end = after.watermark.end.to_string();
                Ok(tenant.client.query_one(sql, &[&end]).await?.get::<_, bool>(0).then_some(()))
            })
            .await;
        }
        drop(running);
        drop(link);
        let () = redis::cmd("REPLICAOF").arg(("NO", "ONE")).query_async(&mut copy).await.unwrap();
        tenant.use_redis(&replica);
        let _next = tenant.ingest_again().await;
        tenant.message(bob, bob, "after").await;
        let state = tenant.caught_up().await;
        match confirmed {
            // PostgreSQL sends the lost tail again, under the same ids.
            false => {
                assert_eq!(state.epoch, before.epoch);
                assert_eq!(tenant.contents(bob).await, ["replicated", "lost with the primary", "after"]);
            }
            true => assert_ne!(state.epoch, before.epoch, "a hole that nobody would ever notice"),
        }
    }
}
