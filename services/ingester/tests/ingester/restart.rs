//! Ingesters that die, and logs that lose something.

use posduif_changelog::Keys;
use posduif_model::{Bucket, Epoch};
use posduif_testkit::{Servers, eventually};

use crate::fixture::{SOON, Tenant};

#[tokio::test(flavor = "multi_thread")]
async fn an_ingester_killed_again_and_again_loses_and_doubles_nothing() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let bob = tenant.user("Bob").await;
    let mut running = Some(tenant.ingest().await);
    let epoch = tenant.state().await.epoch;
    for round in 0..8 {
        for n in 0..20 {
            tenant.message(bob, bob, &format!("{round}-{n}")).await;
            if n == 10 {
                drop(running.take());
            }
        }
        running = Some(tenant.ingest_again().await);
    }
    let contents = tenant.contents(bob).await;
    let expected: Vec<String> =
        (0..8).flat_map(|round| (0..20).map(move |n| format!("{round}-{n}"))).collect();
    assert_eq!(contents, expected);
    assert_eq!(tenant.state().await.epoch, epoch, "a restart opened an epoch");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_while_nobody_listened_arrives_in_the_same_epoch() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let first = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    let epoch = tenant.caught_up().await.epoch;
    drop(first);
    tenant.message(bob, bob, "meanwhile").await;
    let _second = tenant.ingest_again().await;
    assert_eq!(tenant.entries(&[Bucket::User(bob)]).await.len(), 1);
    assert_eq!(tenant.state().await.epoch, epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_log_opens_an_epoch_and_a_running_ingester_notices() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let running = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    let epoch = tenant.caught_up().await.epoch;
    let keys = Keys::new(tenant.id());
    let mut redis = tenant.redis().await;
    let () = redis::cmd("DEL")
        .arg(keys.token())
        .arg(keys.state())
        .arg(keys.commits(&epoch))
        .query_async(&mut redis)
        .await
        .unwrap();
    let reason = running.ended().await;
    assert!(reason.contains("the log changed under its writer"), "{reason}");
    let _next = tenant.ingest_again().await;
    assert_ne!(tenant.state().await.epoch, epoch);
    tenant.message(bob, bob, "after").await;
    assert_eq!(tenant.entries(&[Bucket::User(bob)]).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_behind_what_postgresql_forgot_opens_an_epoch() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let running = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    let before = tenant.caught_up().await;
    tenant.message(bob, bob, "confirmed").await;
    let after = tenant.caught_up().await;
    let confirmed = "SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots
                      WHERE database = current_database()";
    eventually(SOON, "the slot is confirmed", async || {
        let end = after.watermark.end.to_string();
        Ok(tenant.client.query_one(confirmed, &[&end]).await?.get::<_, bool>(0).then_some(()))
    })
    .await;
    drop(running);
    // As after a fail-over of Redis to a replica that missed the tail.
    let mut redis = tenant.redis().await;
    let state = Keys::new(tenant.id()).state();
    let (commit, end) = (before.watermark.commit.get(), before.watermark.end.get());
    let () =
        redis::cmd("HSET").arg((state, "commit", commit, "end", end)).query_async(&mut redis).await.unwrap();
    let _next = tenant.ingest_again().await;
    assert_ne!(tenant.state().await.epoch, before.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_slot_opens_an_epoch_where_nobody_took_notes() {
    let tenant = Tenant::create(Servers::shared().await).await;
    drop(tenant.ingest().await);
    let epoch = tenant.state().await.epoch;
    tenant.forget_notes().await;
    let superuser = tenant.database.connect_superuser().await;
    eventually(SOON, "the slot is dropped", async || {
        let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                     WHERE database = current_database()";
        Ok(superuser.query_one(drop, &[]).await.ok().map(|_| ()))
    })
    .await;
    let _next = tenant.ingest().await;
    assert_ne!(tenant.state().await.epoch, epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_tenant_confirms_what_others_write() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let _running = tenant.ingest().await;
    let other = Tenant::create(Servers::shared().await).await;
    other.user("noise").await;
    let target: String =
        tenant.client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
    let sql = "SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots
                WHERE database = current_database()";
    eventually(SOON, "the idle tenant's slot advances", async || {
        Ok(tenant.client.query_one(sql, &[&target]).await?.get::<_, bool>(0).then_some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_tokens_lie_behind_those_of_redis_goes_on() {
    let tenant = Tenant::create(Servers::shared().await).await;
    drop(tenant.ingest().await);
    let epoch = tenant.state().await.epoch;
    let mut redis = tenant.redis().await;
    // As after a restore of the database.
    let () = redis::cmd("SET")
        .arg(Keys::new(tenant.id()).token())
        .arg(1_000)
        .query_async(&mut redis)
        .await
        .unwrap();
    let _next = tenant.ingest_again().await;
    assert_eq!(tenant.caught_up().await.epoch, epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_that_waits_for_a_slot_ends_when_its_connection_does() {
    let servers = Servers::private().await;
    let tenant = Tenant::create(&servers).await;
    let mut holder = tenant.database.connect().await;
    let transaction = holder.transaction().await.unwrap();
    transaction.execute("SELECT pg_current_xact_id()", &[]).await.unwrap();
    let waiting = tenant.spawn();
    let superuser = tenant.database.connect_superuser().await;
    eventually(SOON, "the slot's creation waits", async || {
        let sql = "SELECT FROM pg_stat_activity WHERE query LIKE 'CREATE_REPLICATION_SLOT%' AND wait_event_type = 'Lock'";
        Ok(superuser.query_opt(sql, &[]).await?.map(|_| ()))
    })
    .await;
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = 'posduif-ingester' AND backend_type = 'client backend'";
    superuser.query(kill, &[]).await.unwrap();
    let reason = tokio::time::timeout(SOON, waiting.ended()).await.expect("the session hangs");
    assert!(!reason.is_empty());
    drop(transaction);
}

/// Replaces entries of a tenant's commit log by ones that nobody can read.
async fn spoil(tenant: &Tenant, epoch: &Epoch, spoils: impl Fn(usize, usize) -> bool) {
    let key = Keys::new(tenant.id()).commits(epoch);
    let mut redis = tenant.redis().await;
    let found: Vec<(String, Vec<String>)> =
        redis::cmd("XRANGE").arg(&key).arg("-").arg("+").query_async(&mut redis).await.unwrap();
    let mut pipeline = redis::pipe();
    pipeline.atomic().del(&key);
    for (place, (id, fields)) in found.iter().enumerate() {
        let foreign = ["what".to_owned(), "is this".to_owned()];
        let fields = if spoils(place, found.len()) { &foreign[..] } else { fields };
        pipeline.cmd("XADD").arg(&key).arg(id).arg(fields);
    }
    let () = pipeline.query_async(&mut redis).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_commit_that_cannot_be_read_is_not_met_again_and_again() {
    let mut tenant = Tenant::create(Servers::shared().await).await;
    tenant.session.wal.confirm_delay = std::time::Duration::from_secs(600);
    let running = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    let before = tenant.caught_up().await;
    tenant.message(bob, bob, "unpublished and unreadable").await;
    tenant.message(bob, bob, "unpublished").await;
    tenant.caught_up().await;
    drop(running);
    // As if these were stored and not yet published.
    let state = Keys::new(tenant.id()).state();
    let (commit, end) = (before.watermark.commit.get(), before.watermark.end.get());
    let back = redis::cmd("HSET").arg((state, "commit", commit, "end", end)).to_owned();
    let () = back.query_async(&mut tenant.redis().await).await.unwrap();
    spoil(&tenant, &before.epoch, |place, length| place == length - 2).await;
    let reason = tenant.ends_again().await;
    assert!(reason.contains("cannot be read"), "{reason}");
    let _next = tenant.ingest_again().await;
    tenant.message(bob, bob, "after").await;
    assert_ne!(tenant.caught_up().await.epoch, before.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_log_that_cannot_be_read_opens_an_epoch_and_stops_no_tenant() {
    for running_meanwhile in [true, false] {
        let mut tenant = Tenant::create(Servers::shared().await).await;
        tenant.session.retention.interval = std::time::Duration::from_millis(100);
        let running = tenant.ingest().await;
        let bob = tenant.user("Bob").await;
        let before = tenant.caught_up().await;
        let mut running = Some(running).filter(|_| running_meanwhile);
        // The oldest while the ingester runs, which its upkeep reads; all of them before it starts.
        spoil(&tenant, &before.epoch, |place, _| place == 0 || !running_meanwhile).await;
        if let Some(running) = running.take() {
            let reason = running.ended().await;
            assert!(reason.contains("cannot be read"), "{reason}");
        }
        let _next = tenant.ingest_again().await;
        tenant.message(bob, bob, "after").await;
        assert_ne!(tenant.caught_up().await.epoch, before.epoch);
    }
}
