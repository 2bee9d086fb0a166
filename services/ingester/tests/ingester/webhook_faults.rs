//! The webhook when something fails: sync goes on, every commit is told at least once, or that some were skipped is.

use std::{collections::BTreeSet, time::Duration};

use posduif_changelog::{Delivered, Keys, LogError, commits::Commits};
use posduif_model::Lsn;
use posduif_testkit::{INGESTER, Servers, chaos::Proxy, eventually};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    fixture::{SOON, Tenant},
    process::Ingester,
    receiver::{Call, Mode, Receiver, section},
    webhook::{ascend, begun, calling, ids},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_refuses_or_never_ends_costs_sync_nothing() {
    let (tenant, receiver, _running) = begun("").await;
    let ann = tenant.user("Ann").await;
    let mut late = Vec::new();
    for mode in [Mode::Take, Mode::Hang, Mode::Answer(500, String::new()), Mode::Endless(500), Mode::Break] {
        receiver.set(mode.clone());
        let (before, begun, mut latest) = (receiver.calls().len(), Instant::now(), Duration::ZERO);
        for n in 0..1_000 {
            tenant.message(ann, ann, &n.to_string()).await;
            if n % 100 == 99 {
                // How far readers are behind what is committed.
                let written = Instant::now();
                tenant.caught_up().await;
                latest = latest.max(written.elapsed());
            }
        }
        eprintln!("{mode:?}: 1,000 transactions in {:?}, readers at most {latest:?} behind", begun.elapsed());
        late.push(latest);
        receiver.until("it was called", |calls| (calls.len() > before).then_some(())).await;
    }
    // Whoever waited for a receiver that hangs would be ten seconds late.
    assert!(late.iter().all(|latest| *latest < 3 * late[0] + Duration::from_secs(2)), "{late:?}");
    receiver.set(Mode::Take);
    let commits = receiver.has(5_000).await;
    assert!(ascend(&commits) && commits.len() == 5_000, "{} are told", commits.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_log_is_told_as_skipped() {
    let (tenant, receiver, _running) = begun("").await;
    let ann = tenant.user("Ann").await;
    receiver.set(Mode::Answer(503, String::new()));
    tenant.message(ann, ann, "held").await;
    receiver.until("a refusal", |calls| calls.iter().any(|call| !call.taken).then_some(())).await;
    tenant.message(ann, ann, "lost").await;
    tenant.message(ann, ann, "after").await;
    let state = tenant.caught_up().await;
    let sql = "SELECT xmin::text FROM messages WHERE content = 'lost'";
    let xid: String = tenant.client.query_one(sql, &[]).await.unwrap().get(0);
    let upto = state.watermark.commit;
    let read = tenant.log.commits(&state.epoch, state.base, upto, 1_000).await.unwrap();
    let Commits::Read(records) = read else { panic!("{read:?}") };
    let lost = records.iter().find(|record| record.xid.to_string() == xid).unwrap().commit.get();
    let key = Keys::new(tenant.id()).commits(&state.epoch);
    let delete = redis::cmd("XDEL").arg((key, format!("{lost}-0"))).to_owned();
    let gone: u64 = delete.query_async(&mut tenant.redis().await).await.unwrap();
    assert_eq!(gone, 1);
    receiver.set(Mode::Take);
    assert!(ascend(&receiver.has(2).await));
    receiver.skipped(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingester_that_is_killed_loses_no_commit() {
    let (tenant, receiver) = calling(", batch: 3").await;
    let mut running = Some(tenant.ingest().await);
    receiver.skipped(1).await;
    let ann = tenant.user("Ann").await;
    for round in 0..5 {
        for n in 0..20 {
            tenant.message(ann, ann, &format!("{round}-{n}")).await;
            // Killed while the receiver is quick, or while it has a call that it did not answer.
            if n == 5 && round % 2 == 1 {
                receiver.set(Mode::Hang);
            }
            if n == 10 {
                if round % 2 == 1 {
                    let hangs = |calls: &[Call]| calls.last().is_some_and(|call| !call.taken).then_some(());
                    receiver.until("a call that hangs", hangs).await;
                }
                drop(running.take());
            }
        }
        running = Some(tenant.ingest_again().await);
        receiver.set(Mode::Take);
    }
    let all = |commits: &[Value]| ids(commits).into_iter().collect::<BTreeSet<String>>().len();
    receiver.until("all commits are told", |_| (all(&receiver.commits()) >= 100).then_some(())).await;
    assert_eq!(all(&receiver.commits()), 100);
    assert!(receiver.commits().len() < 100 + 5 * 6, "it began from the start: {}", receiver.commits().len());
    let said = receiver.calls().iter().filter(|call| call.json()["skipped"] == true).count();
    assert_eq!(said, 1, "a restart skips nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_epoch_is_told_as_skipped_and_what_comes_after_it_one_by_one() {
    let (tenant, receiver, running) = begun("").await;
    let ann = tenant.user("Ann").await;
    tenant.message(ann, ann, "first").await;
    receiver.has(1).await;
    let first = tenant.caught_up().await;
    drop(running);
    tenant.slot_is_free().await;
    tenant.forget_notes().await;
    let drop_slot = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                      WHERE database = current_database()";
    tenant.database.connect_superuser().await.execute(drop_slot, &[]).await.unwrap();
    let _running = tenant.ingest().await;
    tenant.message(ann, ann, "second").await;
    let commits = receiver.has(2).await;
    receiver.skipped(2).await;
    let epoch = tenant.state().await.epoch;
    assert_ne!(epoch, first.epoch);
    assert!(commits[1]["id"].as_str().unwrap().starts_with(&epoch.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_trimmed_meanwhile_and_commits_too_old_are_told_as_skipped() {
    let (mut tenant, receiver) = calling(", max_age: 1s").await;
    let running = tenant.ingest().await;
    receiver.skipped(1).await;
    let ann = tenant.user("Ann").await;
    // Too old: the receiver is away for longer than commits are told.
    receiver.set(Mode::Answer(500, String::new()));
    tenant.message(ann, ann, "too late").await;
    let gives_up = |calls: &[Call]| {
        let (tells, says) =
            (|c: &Call| !c.taken && !c.commits().is_empty(), |c: &Call| c.json()["skipped"] == true);
        (calls.iter().any(tells) && calls.iter().any(|call| !call.taken && says(call))).then_some(())
    };
    receiver.until("it tries, and says instead that something was skipped", gives_up).await;
    receiver.set(Mode::Take);
    receiver.skipped(2).await;
    assert!(receiver.commits().is_empty(), "{:?}", receiver.commits());
    drop(running);

    // Trimmed: everything the log may keep was written while nobody could tell it.
    receiver.set(Mode::Answer(500, String::new()));
    tenant.session.retention.interval = Duration::from_millis(50);
    tenant.session.retention.max_bytes = 20_000;
    tenant.calls(&receiver, ", max_age: 1h");
    let running = tenant.ingest_again().await;
    for n in 0..20 {
        tenant.message(ann, ann, &format!("{n} {}", "x".repeat(5_000))).await;
    }
    let state = eventually(SOON, "the log is trimmed", async || {
        let state = tenant.caught_up().await;
        Ok((state.floor > state.base).then_some(state))
    })
    .await;
    drop(running);
    receiver.set(Mode::Take);
    let _running = tenant.ingest_again().await;
    receiver.skipped(3).await;
    tenant.message(ann, ann, "after").await;
    receiver.has(1).await;
    assert_eq!(tenant.state().await.epoch, state.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_holds_no_secret_no_address_and_no_user_whatever_becomes_of_a_call() {
    let (tenant, mut receiver) = (Tenant::create(Servers::shared().await).await, Receiver::start().await);
    let url = receiver.url("/canary-path?canary-query=1");
    let section =
        format!("webhook: {{url: '{url}', secret: 'canary-secret-{}', timeout: 300ms}}", "x".repeat(32));
    let mut ingester = Ingester::start_calling(&tenant, &section).await;
    let logged = async |ingester: &Ingester, what: &str| {
        eventually(SOON, what, async || Ok(ingester.process.log().contains(what).then_some(()))).await;
    };
    receiver.skipped(1).await;
    let ann = tenant.user("canary-name").await;
    receiver.set(Mode::Hang);
    tenant.message(ann, ann, "canary-content").await;
    logged(&ingester, "\"reason\":\"timeout\"").await;
    receiver.set(Mode::Answer(302, "location: http://canary-elsewhere/\r\n".to_owned()));
    logged(&ingester, "it answered 302").await;
    receiver.set(Mode::Break);
    logged(&ingester, "\"reason\":\"broken\"").await;
    receiver.stop();
    logged(&ingester, "\"reason\":\"connect\"").await;
    receiver.start_again().await;
    receiver.set(Mode::Take);
    receiver.has(1).await;
    logged(&ingester, "takes calls again").await;

    // A process that is killed while it calls, and whoever comes after it.
    receiver.set(Mode::Hang);
    let before = receiver.calls().len();
    tenant.message(ann, ann, "canary-content").await;
    receiver.until("a call", |calls| (calls.len() > before).then_some(())).await;
    ingester.process.kill9().await;
    receiver.set(Mode::Take);
    tenant.slot_is_free().await;
    ingester.process.start_again();
    let commits = receiver.has(2).await;
    assert!(ascend(&commits), "{commits:?}");
    let log = ingester.process.log();
    assert!(
        log.contains("\"DEBUG\"") && log.contains("127.0.0.1"),
        "the level was not debug; this proves little"
    );
    let leaked: Vec<&str> =
        log.lines().filter(|line| line.contains("canary") || line.contains(&ann.to_string())).collect();
    assert!(leaked.is_empty(), "{leaked:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingester_that_was_frozen_while_another_took_over_moves_nothing() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let receiver = Receiver::start().await;
    let mut old = Ingester::start_calling(&tenant, &section(&receiver, "")).await;
    receiver.skipped(1).await;
    let ann = tenant.user("Ann").await;
    tenant.message(ann, ann, "first").await;
    receiver.has(1).await;
    receiver.set(Mode::Hang);
    tenant.message(ann, ann, "second").await;
    receiver.until("a call that hangs", |calls| calls.iter().any(|call| !call.taken).then_some(())).await;
    old.process.sigstop();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
                AND application_name LIKE 'posduif-ingester%'";
    tenant.database.connect_superuser().await.query(end, &[]).await.unwrap();
    receiver.set(Mode::Take);
    tenant.slot_is_free().await;
    let new = Ingester::start_calling(&tenant, &section(&receiver, "")).await;
    for n in 0..10 {
        tenant.message(ann, ann, &n.to_string()).await;
    }
    receiver.has(12).await;
    let told = async || -> String {
        let key = Keys::new(tenant.id()).webhook();
        redis::cmd("GET").arg(key).query_async(&mut tenant.redis().await).await.unwrap()
    };
    let until = told().await;
    old.process.sigcont();
    eventually(SOON, "the old one has seen that it is out of date", async || {
        Ok(old.process.log().contains("the tenant's session ended").then_some(()))
    })
    .await;
    let reader = &tenant.log;
    let position = until.split_once(' ').unwrap();
    let earlier = Delivered { epoch: position.0.parse().unwrap(), commit: Lsn::ZERO };
    let refused = reader.keep_delivered(1, earlier).await;
    assert!(matches!(refused, Err(LogError::Fenced)), "{refused:?}");
    let lsn = |told: &str| told.split_once(' ').unwrap().1.parse::<u64>().unwrap();
    assert!(lsn(&told().await) >= lsn(&until), "the position went back");
    tenant.message(ann, ann, "last").await;
    receiver.has(13).await;
    assert!(receiver.calls().iter().skip(1).all(|call| call.json()["skipped"] == false));
    drop(new);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_is_away_delays_the_webhook_and_loses_nothing() {
    let mut servers = Servers::private().await;
    let mut tenant = Tenant::create(&servers).await;
    let receiver = Receiver::start().await;
    let proxy = Proxy::start(([127, 0, 0, 1], servers.redis().port()).into()).await;
    tenant.session.redis.url = servers.redis_url_at(INGESTER, proxy.address()).parse().unwrap();
    tenant.session.redis.response_timeout = Duration::from_millis(300);
    tenant.calls(&receiver, "");
    let _running = tenant.ingest().await;
    receiver.skipped(1).await;
    let ann = tenant.user("Ann").await;
    let mut written = 0;
    for round in 0..3 {
        match round {
            0 => proxy.black_hole(true),
            1 => proxy.cut_all(),
            _ => servers.redis_mut().stop().await.unwrap(),
        }
        for n in 0..20 {
            tenant.message(ann, ann, &format!("{round}-{n}")).await;
            written += 1;
        }
        match round {
            0 => {
                proxy.black_hole(false);
                proxy.cut_all();
            }
            1 => {}
            _ => servers.redis_mut().restart().await.unwrap(),
        }
        let commits = receiver.has(written).await;
        assert!(ascend(&commits) && commits.len() == written, "round {round}: {} are told", commits.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_the_log_leaves_out_is_told_as_skipped() {
    let (mut tenant, receiver) = calling("").await;
    tenant.session.wal.transaction_cap_bytes = 100_000;
    let _running = tenant.ingest().await;
    receiver.skipped(1).await;
    let ann = tenant.user("Ann").await;
    tenant.message(ann, ann, &"x".repeat(200_000)).await;
    receiver.skipped(2).await;
    tenant.message(ann, ann, "after").await;
    assert_eq!(receiver.has(1).await.len(), 1);
}
