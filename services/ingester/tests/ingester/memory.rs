//! Redis without memory.

use std::time::Duration;

use posduif_model::Bucket;
use posduif_testkit::{Servers, eventually};

use crate::fixture::{SOON, Tenant, content};

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
    let found: Vec<String> = page.entries.iter().map(|entry| content(&entry.changes[0].row)).collect();
    assert!(!found.is_empty());
    assert_eq!(found, expected[expected.len() - found.len()..]);
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
        tenant.slot_is_free().await;
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
