//! Redis away, out of memory or replaced by a copy that lacks the end.

use std::time::Duration;

use posduif_changelog::Keys;
use posduif_model::Bucket;
use posduif_testkit::{Servers, chaos::Proxy, eventually};
use tokio_postgres::Client;

use crate::fixture::{SOON, Tenant};

async fn walsender(client: &Client) -> i32 {
    let sql = "SELECT active_pid FROM pg_replication_slots WHERE database = current_database() AND active";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn contents(tenant: &Tenant, bob: posduif_model::UserId) -> Vec<String> {
    let entries = tenant.entries(&[Bucket::User(bob)]).await;
    let content = |row: &str| {
        serde_json::from_str::<serde_json::Value>(row).unwrap()["content"].as_str().unwrap().to_owned()
    };
    entries.iter().map(|entry| content(&entry.changes[0].row)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replication_connection_survives_a_redis_that_hangs_and_one_that_restarts() {
    let mut servers = Servers::private().await;
    let mut tenant = Tenant::create(&servers).await;
    let proxy = Proxy::start(([127, 0, 0, 1], servers.redis().port()).into()).await;
    tenant.session.redis.url = format!("redis://{}/0", proxy.address()).parse().unwrap();
    tenant.session.redis.response_timeout = Duration::from_millis(300);
    let _running = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    let (epoch, pid) = (tenant.caught_up().await.epoch, walsender(&tenant.client).await);
    let mut expected = Vec::new();
    for round in 0..3 {
        match round {
            0 => proxy.black_hole(true),
            1 => proxy.cut_all(),
            _ => servers.redis_mut().stop().await.unwrap(),
        }
        for n in 0..50 {
            expected.push(format!("{round}-{n}"));
            tenant.message(bob, bob, expected.last().unwrap()).await;
        }
        // Several attempts of the ingester long.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        match round {
            0 => proxy.black_hole(false),
            1 => {}
            _ => servers.redis_mut().restart().await.unwrap(),
        }
        assert_eq!(contents(&tenant, bob).await, expected, "round {round}");
        assert_eq!(walsender(&tenant.client).await, pid, "round {round}: the connection was given up");
    }
    assert_eq!(tenant.state().await.epoch, epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_after_every_byte_stores_nothing_twice_and_nothing_less() {
    use posduif_testkit::chaos::Direction;

    let servers = Servers::shared().await;
    let mut tenant = Tenant::create(servers).await;
    let proxy = Proxy::start(([127, 0, 0, 1], servers.redis().port()).into()).await;
    tenant.session.redis.url = format!("redis://{}/0", proxy.address()).parse().unwrap();
    tenant.session.wal.chunk_bytes = 4_096;
    let _running = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    let epoch = tenant.caught_up().await.epoch;
    let mut expected = Vec::new();
    for cut in 0..80 {
        // A request is cut anywhere, an answer, which has a few bytes, right after it was given.
        match cut % 2 {
            0 => proxy.cut_after_bytes(1 + cut * 53, Direction::ToServer),
            _ => proxy.cut_after_bytes(1 + cut / 2 % 6, Direction::ToClient),
        }
        for n in 0..2 {
            // Some transactions are larger than a chunk.
            let size = if cut % 3 == n { 6_000 } else { 10 };
            expected.push(format!("{cut}-{n}-{}", "x".repeat(usize::try_from(size).unwrap())));
            tenant.message(bob, bob, expected.last().unwrap()).await;
        }
        tenant.caught_up().await;
    }
    assert_eq!(contents(&tenant, bob).await, expected);
    assert_eq!(tenant.state().await.epoch, epoch, "a lost answer cost an epoch");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_without_memory_makes_no_hole_and_is_relieved() {
    let servers = Servers::private().await;
    let tenant = Tenant::create(&servers).await;
    let _running = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    let before = tenant.caught_up().await;
    let mut redis = tenant.redis().await;
    let mut set = async |bytes: &str| {
        let set = redis::cmd("CONFIG").arg(("SET", "maxmemory", bytes)).to_owned();
        let () = set.query_async(&mut redis).await.unwrap();
    };
    let mut expected = Vec::new();
    // Memory comes and goes in the middle of transactions: entry 0 refused, entry 1 accepted would be a hole for ever.
    for round in 0..6 {
        set(if round % 2 == 0 { "1" } else { "0" }).await;
        for n in 0..20 {
            expected.push(format!("{round}-{n} {}", "x".repeat(500)));
            tenant.message(bob, bob, expected.last().unwrap()).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    set("0").await;
    let state = tenant.caught_up().await;
    assert_eq!(state.epoch, before.epoch);
    // Under pressure the oldest part of the log goes; what is left is whole, in order and ends with the newest.
    let buckets = [Bucket::User(bob)];
    let read = tenant.log.read(&state.epoch, &buckets, state.floor, state.watermark.commit, 10_000);
    let posduif_changelog::reader::Read::Page(page) = read.await.unwrap() else { panic!("not readable") };
    let found: Vec<String> = page
        .entries
        .iter()
        .map(|e| {
            serde_json::from_str::<serde_json::Value>(&e.changes[0].row).unwrap()["content"]
                .as_str()
                .unwrap()
                .into()
        })
        .collect();
    assert!(!found.is_empty());
    assert_eq!(found, expected[expected.len() - found.len()..]);
}

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
                assert_eq!(contents(&tenant, bob).await, ["replicated", "lost with the primary", "after"]);
            }
            true => assert_ne!(state.epoch, before.epoch, "a hole that nobody would ever notice"),
        }
    }
}

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

/// Leaves a tenant's Redis without memory for anything new.
async fn fill(tenant: &Tenant) {
    let mut redis = tenant.redis().await;
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut redis).await.unwrap();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let used: u64 = used.trim().parse().unwrap();
    let set = redis::cmd("CONFIG").arg(("SET", "maxmemory", used - 500_000)).to_owned();
    let () = set.query_async(&mut redis).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingester_that_starts_while_redis_has_no_memory_frees_some_and_goes_on() {
    for other_rules in [false, true] {
        let servers = Servers::private().await;
        let mut tenant = Tenant::create(&servers).await;
        let running = tenant.ingest().await;
        let bob = tenant.user("Bob").await;
        for n in 0..200 {
            tenant.message(bob, bob, &format!("{n} {}", "x".repeat(20_000))).await;
        }
        let before = tenant.caught_up().await;
        drop(running);
        fill(&tenant).await;
        if other_rules {
            // A new epoch does not wait for the memory of the one before it either.
            tenant.session.rules = tenant.session.rules.clone().with_max_row_bytes(100_000);
        }
        let active = "SELECT FROM pg_replication_slots WHERE database = current_database() AND active";
        eventually(SOON, "the slot is free", async || {
            Ok(tenant.client.query_opt(active, &[]).await?.is_none().then_some(()))
        })
        .await;
        let _next = tenant.spawn();
        eventually(SOON, "the session has begun", async || {
            let state = tenant.log.state().await?;
            Ok(state.filter(|state| (state.epoch != before.epoch) == other_rules))
        })
        .await;
        tenant.message(bob, bob, "after").await;
        let after = tenant.caught_up().await;
        assert!(after.floor > before.floor && after.watermark.commit > after.base);
        assert_eq!(after.epoch != before.epoch, other_rules);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_restarted_is_not_asked_to_end_a_connection_of_its_earlier_life() {
    let mut servers = Servers::private().await;
    let tenant = Tenant::create(&servers).await;
    let mut numbered = Vec::new();
    for _ in 0..50 {
        numbered.push(tenant.redis().await);
    }
    let mut writer = crate::scripts::writer_at(&servers, tenant.id(), 1).await.unwrap();
    let old: i64 = redis::cmd("CLIENT").arg("ID").query_async(writer.connection()).await.unwrap();
    servers.redis_mut().restart().await.unwrap();
    // Somebody else has that number now.
    let mut other = loop {
        let mut connection = tenant.redis().await;
        let id: i64 = redis::cmd("CLIENT").arg("ID").query_async(&mut connection).await.unwrap();
        assert!(id <= old, "the numbers did not begin again");
        if id == old {
            break connection;
        }
    };
    let connection = posduif_changelog::connect::connect(servers.redis_url(), Default::default()).await;
    writer.reconnect(connection.unwrap()).await.unwrap();
    let alive: Result<String, _> = redis::cmd("PING").query_async(&mut other).await;
    assert_eq!(alive.unwrap(), "PONG");
}
