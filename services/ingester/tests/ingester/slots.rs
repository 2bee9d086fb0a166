//! Slots that PostgreSQL takes away, and a Redis that would drop what it likes.

use std::time::Duration;

use posduif_model::Bucket;
use posduif_testkit::{Servers, eventually};

use crate::fixture::{SOON, Tenant};

async fn set(servers: &Servers, setting: &str) {
    let admin = servers.superuser().await;
    admin.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

/// Writes WAL until the tenant's unused slot is lost.
async fn lose_slot(servers: &Servers, tenant: &Tenant) {
    let admin = servers.superuser().await;
    eventually(SOON, "the slot is lost", async || {
        admin.batch_execute("SELECT pg_logical_emit_message(false, 'test', '', true)").await?;
        admin.batch_execute("SELECT pg_switch_wal()").await?;
        admin.batch_execute("CHECKPOINT").await?;
        let sql = "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE database = current_database()";
        Ok(tenant.client.query_one(sql, &[]).await?.get::<_, bool>(0).then_some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_of_which_nobody_took_notes_is_replaced_with_a_new_epoch_and_not_again_and_again() {
    let servers = Servers::private().await;
    set(&servers, "max_slot_wal_keep_size = '1MB'").await;
    let mut tenant = Tenant::create(&servers).await;
    tenant.session.wal.confirm_delay = Duration::from_secs(600);
    let bob = tenant.user("Bob").await;
    drop(tenant.ingest().await);
    let mut epochs = vec![tenant.state().await.epoch];
    for round in 0..3 {
        tenant.forget_notes().await;
        lose_slot(&servers, &tenant).await;
        tenant.message(bob, bob, &format!("while there is no slot {round}")).await;
        let running = tenant.ingest_again().await;
        tenant.message(bob, bob, "after").await;
        assert_eq!(tenant.entries(&[Bucket::User(bob)]).await.len(), 1, "round {round}");
        epochs.push(tenant.state().await.epoch);
        drop(running);
    }
    epochs.dedup();
    assert_eq!(epochs.len(), 4, "a slot was replaced under the same epoch");
    tenant.forget_notes().await;
    lose_slot(&servers, &tenant).await;
    for _ in 0..2 {
        let reason = tenant.spawn().ended().await;
        assert!(reason.contains("created 4 times within an hour"), "{reason}");
        assert!(reason.contains("wal_removed") && reason.contains("max_slot_wal_keep_size"), "{reason}");
    }
    // An hour later.
    let age = "UPDATE posduif_engine.epoch_history SET opened_at = opened_at - interval '61 minutes'";
    tenant.client.batch_execute(age).await.unwrap();
    let _running = tenant.ingest().await;
    let history = "SELECT count(*), count(DISTINCT epoch), bool_and(reason = 'new_slot') FROM posduif_engine.epoch_history";
    let row = tenant.client.query_one(history, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, bool>(2)), (5, 5, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_there_is_taken_as_it_is_and_kept_over_a_fail_over() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let name = tenant.session.wal.slot_name(tenant.database.name());
    let create = "SELECT pg_create_logical_replication_slot($1::text::name, 'pgoutput')";
    tenant.database.connect_superuser().await.execute(create, &[&name]).await.unwrap();
    let bob = tenant.user("Bob").await;
    let _running = tenant.ingest().await;
    tenant.message(bob, bob, "x").await;
    assert_eq!(tenant.entries(&[Bucket::User(bob)]).await.len(), 1);
    let sql =
        "SELECT failover, slot_name::text = $1 FROM pg_replication_slots WHERE database = current_database()";
    let row = tenant.client.query_one(sql, &[&name]).await.unwrap();
    assert!(row.get::<_, bool>(0) && row.get::<_, bool>(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_another_plugin_is_left_alone() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let name = tenant.session.wal.slot_name(tenant.database.name());
    let create = "SELECT pg_create_logical_replication_slot($1::text::name, 'test_decoding')";
    tenant.database.connect_superuser().await.execute(create, &[&name]).await.unwrap();
    let reason = tenant.spawn().ended().await;
    assert!(reason.contains(&name) && reason.contains("sync.wal.slot_name"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_evicts_is_not_written_to_and_a_running_ingester_notices() {
    let servers = Servers::private().await;
    let mut tenant = Tenant::create(&servers).await;
    tenant.session.retention.interval = Duration::from_millis(100);
    let running = tenant.ingest().await;
    let mut redis = tenant.redis().await;
    let mut set = async |name: &str, value: &str| {
        let set = redis::cmd("CONFIG").arg(("SET", name, value)).to_owned();
        let () = set.query_async(&mut redis).await.unwrap();
    };
    set("maxmemory", "1gb").await;
    set("maxmemory-policy", "allkeys-lru").await;
    for reason in [running.ended().await, tenant.spawn().ended().await] {
        assert!(reason.contains("allkeys-lru") && reason.contains("noeviction"), "{reason}");
    }
    set("maxmemory-policy", "noeviction").await;
    let _next = tenant.ingest_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_nobody_used_for_too_long_is_replaced_and_the_history_says_why() {
    let servers = Servers::private().await;
    set(&servers, "idle_replication_slot_timeout = '1s'").await;
    let tenant = Tenant::create(&servers).await;
    let bob = tenant.user("Bob").await;
    drop(tenant.ingest().await);
    let epoch = tenant.state().await.epoch;
    tenant.forget_notes().await;
    let admin = servers.superuser().await;
    eventually(3 * SOON, "the slot is invalidated", async || {
        admin.batch_execute("CHECKPOINT").await?;
        let sql = "SELECT FROM pg_replication_slots WHERE database = current_database() AND invalidation_reason = 'idle_timeout'";
        Ok(tenant.client.query_opt(sql, &[]).await?.map(|_| ()))
    })
    .await;
    let _next = tenant.ingest_again().await;
    tenant.message(bob, bob, "after").await;
    assert_eq!(tenant.entries(&[Bucket::User(bob)]).await.len(), 1);
    assert_ne!(tenant.state().await.epoch, epoch);
    let history = "SELECT detail FROM posduif_engine.epoch_history ORDER BY opened_at DESC LIMIT 1";
    let detail: String = tenant.client.query_one(history, &[]).await.unwrap().get(0);
    assert!(detail.contains("idle_timeout"), "{detail}");
}
