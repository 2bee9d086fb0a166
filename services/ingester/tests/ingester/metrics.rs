//! What a running ingester's admin port says, and that it moves when something happens.

use posduif_ingester::metrics::names;
use posduif_testkit::Servers;

use crate::{
    exposition::Scrape,
    fixture::Tenant,
    process::Ingester,
    receiver::{Mode, Receiver, section},
};

async fn set(servers: &Servers, setting: &str) {
    let admin = servers.superuser().await;
    admin.batch_execute(&format!("ALTER SYSTEM {setting}")).await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_commits_and_sizes_are_counted_and_every_metric_is_there() {
    let servers = Servers::private().await;
    set(&servers, "SET max_slot_wal_keep_size = '64MB'").await;
    let tenant = Tenant::create(&servers).await;
    let tenant_id = tenant.id().to_string();
    let receiver = Receiver::start().await;
    let ingester = Ingester::start_calling(&tenant, &section(&receiver, "")).await;
    let bob = tenant.user("Bob").await;
    let inserted = |scrape: &Scrape| {
        let labels = [("tenant", tenant_id.as_str()), ("table", "public.messages"), ("op", "insert")];
        scrape.find(names::CHANGES, &labels).first().copied().unwrap_or(0.0)
    };
    let before = ingester.scrape().await;
    assert_eq!(inserted(&before), 0.0);
    for n in 0..3 {
        tenant.message(bob, bob, &format!("message {n}")).await;
    }
    tenant.client.batch_execute("CREATE TABLE not_declared (id int PRIMARY KEY)").await.unwrap();
    tenant.client.batch_execute("ALTER PUBLICATION posduif ADD TABLE not_declared").await.unwrap();
    ingester.until("three messages are counted", |s| (inserted(s) == 3.0).then_some(())).await;
    let delivered = |s: &Scrape| s.find(names::WEBHOOK_DELIVERED, &[]).first().copied();
    ingester.until("three messages are told", |s| (delivered(s) == Some(3.0)).then_some(())).await;
    ingester
        .until("the slot has been looked at", |s| (!s.find(names::SLOT_SAFE, &[]).is_empty()).then_some(()))
        .await;
    let scrape = ingester.scrape().await;
    for name in names::ALL {
        let series = [name.to_owned(), format!("{name}_count")];
        let there = series.iter().any(|name| !scrape.find(name, &[]).is_empty());
        // Their labels say what happened, so there are none before it does.
        let is_eventful = [names::FAILURES, names::ROWS_LEFT_OUT, names::ORPHAN_SLOT].contains(&name);
        assert!(there || is_eventful, "{name} is missing");
    }
    // Bob and his three new last messages.
    let users = scrape.value(names::CHANGES, &[("table", "public.users"), ("op", "update")]);
    assert_eq!(users, 3.0);
    assert!(scrape.value(names::CHANGES, &[("table", "other"), ("op", "insert")]) >= 1.0, "heartbeats");
    assert!(scrape.value(names::COMMITS, &[]) >= before.value(names::COMMITS, &[]) + 3.0);
    assert!(scrape.value(names::STORED_BYTES, &[]) > before.value(names::STORED_BYTES, &[]));
    assert!(scrape.value(&format!("{}_count", names::CHUNK_BYTES), &[]) >= 1.0);
    assert!(scrape.value(&format!("{}_count", names::APPEND), &[]) >= 1.0);
    let published = scrape.value(&format!("{}_count", names::PUBLISH), &[]);
    assert!(published >= 4.0, "{published}");
    assert!(scrape.value(&format!("{}_sum", names::PUBLISH), &[]) / published < 20.0, "no common clock");
    assert_eq!(scrape.value(names::SLOT_LIMIT, &[]), f64::from(64 << 20));
    assert_eq!(scrape.value(names::SLOT_STATUS, &[("status", "reserved")]), 1.0);
    assert_eq!(scrape.value(names::FOLLOWING, &[]), 1.0);
    assert_eq!(scrape.value(names::TAKE_OVERS, &[]), 1.0);
    assert!(scrape.find("process_resident_memory_bytes", &[])[0] > 0.0);
    let allowed = ["tenant", "table", "op", "reason", "slot", "status", "version", "le"];
    for (name, labels) in scrape.labels().filter(|(name, _)| name.starts_with("posduif_")) {
        assert!(labels.keys().all(|label| allowed.contains(&label.as_str())), "{name} {labels:?}");
        assert!(!labels.values().any(|value| value.contains(&bob.to_string())), "{name} names a user");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_late_shows_it_and_so_does_what_it_skips() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let receiver = Receiver::start().await;
    receiver.set(Mode::Answer(503, String::new()));
    let ingester = Ingester::start_calling(&tenant, &section(&receiver, "")).await;
    let late = |seconds: f64| move |s: &Scrape| (s.value(names::WEBHOOK_LAG, &[]) > seconds).then_some(());
    ingester.until("the first call is late", late(1.0)).await;
    receiver.set(Mode::Take);
    receiver.skipped(1).await;
    receiver.set(Mode::Answer(410, String::new()));
    let bob = tenant.user("Bob").await;
    tenant.message(bob, bob, "x").await;
    ingester.until("a commit is late", late(2.0)).await;
    let scrape = ingester.scrape().await;
    let of = |name, reason| scrape.value(name, &[("reason", reason)]);
    assert!(of(names::WEBHOOK_FAILED, "status") >= 1.0);
    assert_eq!((of(names::WEBHOOK_FAILED, "gone"), of(names::WEBHOOK_FAILED, "timeout")), (1.0, 0.0));
    assert_eq!((of(names::WEBHOOK_SKIPPED, "begin"), of(names::WEBHOOK_SKIPPED, "age")), (1.0, 0.0));
    assert_eq!(scrape.value(names::WEBHOOK_DELIVERED, &[]), 0.0);
    ingester.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_and_age_grow_while_a_standby_is_missing_and_the_slot_is_reported_before_it_is_lost() {
    let servers = Servers::private().await;
    set(&servers, "SET max_slot_wal_keep_size = '64MB'").await;
    let tenant = Tenant::create(&servers).await;
    let ingester = Ingester::start(&tenant).await;
    // The table is known before its commits wait: the first rows of one wait with the catalogue, not at the gate.
    tenant.user("Bob").await;
    tenant.caught_up().await;
    let id = tenant.id().to_string();
    let behind = async |seconds: f64| {
        ingester
            .until(&format!("lag and age pass {seconds} s"), |s| {
                let lag = s.find(names::HEARTBEAT_LAG, &[]).first().copied()?;
                (lag > seconds && s.value(names::WATERMARK_AGE, &[]) > seconds).then_some(())
            })
            .await;
    };
    set(&servers, "SET synchronous_standby_names = 'nobody'").await;
    let writer = tenant.database.connect().await;
    let waiting =
        tokio::spawn(async move { writer.batch_execute("INSERT INTO users (username) VALUES ('W')").await });
    behind(1.0).await;
    behind(3.0).await;
    let scrape = ingester.scrape().await;
    assert!(scrape.value(names::WAITING, &[]) >= 1.0, "the commit does not wait");
    assert!(scrape.value(names::OLDEST_WAITING, &[]) > 1.0);
    ingester.says(&id, "not_ready", "missing synchronous standby").await;
    ingester.says(&format!("{id}/lag"), "degraded", "s late").await;

    // Messages that are not transactional wait for nobody.
    let admin = tenant.database.connect().await;
    posduif_testkit::eventually(crate::fixture::SOON, "the slot is near its limit", async || {
        let emit = "SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1024 * 1024), true)";
        admin.execute(emit, &[]).await?;
        let safe = "SELECT safe_wal_size < 14 * 1024 * 1024 FROM pg_replication_slots
                     WHERE database = current_database()";
        Ok(admin.query_one(safe, &[]).await?.get::<_, bool>(0).then_some(()))
    })
    .await;
    ingester.says(&format!("{id}/slot"), "degraded", "max_slot_wal_keep_size").await;
    let scrape = ingester.scrape().await;
    assert!(scrape.value(names::LAG_BYTES, &[]) > f64::from(40 << 20));
    assert!(scrape.value(names::UNCONFIRMED_BYTES, &[]) > f64::from(40 << 20));
    assert!(scrape.value(names::SLOT_RETAINED, &[]) > f64::from(40 << 20));
    assert!(scrape.value(names::SLOT_SAFE, &[]) < f64::from(16 << 20));

    set(&servers, "RESET synchronous_standby_names").await;
    waiting.await.unwrap().unwrap();
    ingester
        .until("all is well again", |s| {
            let fresh = s.value(names::HEARTBEAT_LAG, &[]) < 3.0 && s.value(names::WATERMARK_AGE, &[]) < 3.0;
            (fresh && s.value(names::WAITING, &[]) == 0.0).then_some(())
        })
        .await;
    ingester.says(&format!("{id}/lag"), "ready", "").await;
    ingester.says(&format!("{id}/slot"), "ready", "").await;
    ingester.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_dropped_counts_as_failure_new_slot_take_over_and_epoch() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let ingester = Ingester::start(&tenant).await;
    let opened = |s: &Scrape| s.value(names::EPOCHS, &[("reason", "new_slot")]);
    let before = ingester.scrape().await;
    assert_eq!((opened(&before), before.value(names::SLOTS_CREATED, &[])), (1.0, 1.0));
    assert_eq!(before.value(names::EPOCHS, &[("reason", "rules_changed")]), 0.0, "a rate needs the zero");
    let drop = "SELECT pg_terminate_backend(active_pid, 5000), pg_drop_replication_slot(slot_name)
                  FROM pg_replication_slots WHERE database = current_database()";
    let superuser = tenant.database.connect_superuser().await;
    tenant.forget_notes().await;
    posduif_testkit::eventually(crate::fixture::SOON, "the slot is dropped", async || {
        Ok(superuser.query(drop, &[]).await.ok())
    })
    .await;
    ingester.until("an epoch is counted", |s| (opened(s) == 2.0).then_some(())).await;
    ingester.ready().await;
    let after = ingester.scrape().await;
    assert_eq!(after.value(names::SLOTS_CREATED, &[]), 2.0);
    assert!(after.value(names::TAKE_OVERS, &[]) >= 2.0);
    assert!(after.find(names::FAILURES, &[]).iter().sum::<f64>() >= 1.0);
    ingester
        .until("the epoch's time moves", |s| {
            let (then, now) = (before.find(names::EPOCH_OPENED, &[]), s.find(names::EPOCH_OPENED, &[]));
            (now.first()? > then.first().unwrap_or(&0.0)).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_that_wait_for_an_old_transaction_are_told_with_what_to_do() {
    let tenant = Tenant::create(Servers::shared().await).await;
    // An epoch in a slot that exists: the slot's creation itself would wait.
    let mut ingester = Ingester::start(&tenant).await;
    assert_eq!(ingester.process.terminate(crate::fixture::SOON).await, 0);
    let mut holder = tenant.database.connect().await;
    let old = holder.transaction().await.unwrap();
    old.execute("SELECT pg_current_xact_id()", &[]).await.unwrap();
    let mut redis = tenant.redis().await;
    let state = posduif_changelog::Keys::new(tenant.id()).state();
    let () = redis::cmd("HSET").arg((state, "broken", "for the test")).query_async(&mut redis).await.unwrap();
    let ingester = Ingester::start(&tenant).await;
    let part = format!("{}/snapshots", tenant.id());
    ingester.says(&part, "degraded", "pg_stat_activity").await;
    assert_eq!(ingester.scrape().await.value(names::UNREADY, &[]), 1.0);
    old.commit().await.unwrap();
    ingester.says(&part, "ready", "").await;
    ingester.until("the epoch is ready", |s| (s.value(names::UNREADY, &[]) == 0.0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_counts_retries_and_the_lag_grows_meanwhile() {
    let mut servers = Servers::private().await;
    let tenant = Tenant::create(&servers).await;
    let ingester = Ingester::start(&tenant).await;
    assert_eq!(ingester.scrape().await.value(names::RETRIES, &[]), 0.0);
    servers.redis_mut().stop().await.unwrap();
    ingester.says("redis", "not_ready", "Redis is not available").await;
    ingester
        .until("retries and lag grow", |s| {
            (s.value(names::RETRIES, &[]) >= 1.0 && s.value(names::HEARTBEAT_LAG, &[]) > 3.0).then_some(())
        })
        .await;
    // An alert sees an outage that lasts only while the counter goes on.
    let before = ingester.scrape().await.value(names::RETRIES, &[]);
    ingester.until("retries go on", |s| (s.value(names::RETRIES, &[]) >= before + 8.0).then_some(())).await;
    servers.redis_mut().restart().await.unwrap();
    ingester.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_goes_on_growing_while_postgresql_is_away() {
    let mut servers = Servers::private().await;
    let tenant = Tenant::create(&servers).await;
    let ingester = Ingester::start(&tenant).await;
    servers.postgres_mut().stop().await.unwrap();
    ingester
        .until("the session ends and the lag grows", |s| {
            let gone = s.value(names::FOLLOWING, &[]) == 0.0;
            (gone && s.value(names::HEARTBEAT_LAG, &[]) > 3.0).then_some(())
        })
        .await;
    assert!(ingester.scrape().await.find(names::FAILURES, &[]).iter().sum::<f64>() >= 1.0);
    servers.postgres_mut().restart().await.unwrap();
    ingester.ready().await;
}
