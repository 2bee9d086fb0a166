//! Snapshot after snapshot beside eight writers: every state that a device ever shows is one that PostgreSQL was in.

use std::{
    cell::Cell,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::join_all;
use posduif_model::{Lsn, UserId};
use posduif_sdk::Device;
use posduif_testkit::{Servers, eventually};
use rand::{RngExt, rngs::StdRng};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    ledger::Ledger,
    phone::{agrees, enroll, sync},
    run::{Run, from_environment},
    shape,
    site::{PATIENCE, Settings, Site},
    watch::{State, Watch},
    whole::assert_whole,
    writer::{Shared, Writer, open_accounts},
};

const WRITERS: usize = 8;
const USERS: usize = 3;
/// How long commits wait for a standby that is not there.
const STANDBY_AWAY: Duration = Duration::from_millis(2_500);

/// A device, whoever looks at its file, and how far it was compared.
struct Watched {
    user: UserId,
    device: Device,
    watch: Watch,
    at: Cell<Lsn>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_state_that_a_device_shows_is_one_that_postgresql_was_in() {
    let run = Run::begin("every_state_that_a_device_shows");
    let snapshots: u32 = from_environment("POSDUIF_DEVICES_SNAPSHOTS", 10);
    let mut servers = Servers::durable().await;
    // Careless commits are on the disk only when somebody else's are.
    set(&servers, "wal_writer_delay = '10s'").await;
    let settings = Settings {
        sql: shape::SQL.to_owned(),
        tables: shape::declarations(),
        batch_size: 7,
        ..Settings::default()
    };
    let site = Site::start(&servers, settings).await;
    let mut ledger = Ledger::open(&site.database).await;
    let devices = enroll_all(&site).await;
    let users: Vec<UserId> = devices[..USERS].iter().map(|watched| watched.user).collect();
    site.database.connect().await.batch_execute(&open_accounts(&users)).await.unwrap();
    for watched in &devices {
        sync(&watched.device).await;
    }

    let (shared, stop) = (Arc::new(Shared::default()), CancellationToken::new());
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let (url, users) = (site.database.superuser_url().to_owned(), users.clone());
        let (shared, rng, pause) = (Arc::clone(&shared), run.rng(number as u64), Duration::from_millis(400));
        writers.spawn(Writer { number, url, users, shared, rng, pause }.work(stop.clone()));
    }

    let (taken, done) = (Cell::new(0), CancellationToken::new());
    let roam = async {
        let lanes = (0..).zip(&devices).map(|(n, watched)| {
            let rng = run.rng(100 + n);
            roam(watched, rng, &taken, &done)
        });
        join_all(lanes).await;
    };
    let fate = async {
        let mut tally = Faults::default();
        loop {
            sleep(Duration::from_millis(700)).await;
            standby_away(&servers).await;
            tally.standby += 1;
            sleep(Duration::from_millis(700)).await;
            tally.lost += crash(&mut servers, &site, &shared).await;
            tally.crashes += 1;
            if taken.get() >= snapshots && tally.lost > 0 {
                done.cancel();
                return tally;
            }
            assert!(tally.crashes < 5 || tally.lost > 0, "no crash took anything");
        }
    };
    let judge = async {
        let mut compared = 0;
        while !done.is_cancelled() {
            sleep(Duration::from_millis(100)).await;
            compared += compare(&mut ledger, &devices).await;
        }
        compared
    };
    let (_, tally, mut compared) = tokio::join!(roam, fate, judge);
    stop.cancel();
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    // At rest every device comes to what PostgreSQL holds, by states that it held.
    let client = site.database.connect().await;
    for watched in &devices {
        agrees(&site, &client, &watched.device).await;
    }
    compared += compare(&mut ledger, &devices).await;
    eprintln!(
        "seed {}: {} snapshots, {compared} states compared, {} commits in the ledger, {} by the writers, {} refused, \
         {tally:?}",
        run.seed,
        taken.get(),
        ledger.commits,
        shared.committed.load(Ordering::Relaxed),
        shared.refused.load(Ordering::Relaxed),
    );
    assert!(compared > taken.get() as usize, "too few states were compared");
}

#[derive(Debug, Default)]
struct Faults {
    standby: u32,
    crashes: u32,
    /// Acknowledged transactions that crashes took.
    lost: usize,
}

/// One device of each user, and a second one of the first.
async fn enroll_all(site: &Site) -> Vec<Watched> {
    let mut devices = Vec::new();
    for n in 0..=USERS {
        let file = site.scratch.join(&format!("{n}.sqlite"));
        let device = enroll(site, &file, &format!("User {}", n % USERS), n >= USERS, None).await;
        let (user, watch) = (device.user_id(), Watch::start(file));
        devices.push(Watched { user, device, watch, at: Cell::new(Lsn::ZERO) });
    }
    devices
}

/// Snapshots and catch-ups in random order.
async fn roam(watched: &Watched, mut rng: StdRng, taken: &Cell<u32>, done: &CancellationToken) {
    while !done.is_cancelled() {
        let is_snapshot = rng.random_bool(0.7);
        if is_snapshot {
            // As a device does that the server tells so: what it shows stays until the new rows are there.
            let forget = "DELETE FROM posduif_state WHERE name = 'cursor'; DELETE FROM posduif_staging";
            watched.device.connection().execute_batch(forget).unwrap();
        }
        let summary = sync(&watched.device).await;
        assert!(summary.snapshot || !is_snapshot, "a device without a cursor took no snapshot");
        taken.set(taken.get() + u32::from(summary.snapshot));
        sleep(Duration::from_millis(rng.random_range(0..200))).await;
    }
}

/// Compares all states that were seen since the last time; gives how many.
async fn compare(ledger: &mut Ledger, devices: &[Watched]) -> usize {
    let seen: Vec<(&Watched, Vec<State>)> = devices.iter().map(|w| (w, w.watch.take())).collect();
    let newest = seen.iter().flat_map(|(_, states)| states).map(|state| state.lsn).max();
    let Some(newest) = newest else { return 0 };
    ledger.follow(newest).await;
    let mut compared = 0;
    for (watched, states) in seen {
        for State { lsn, rows } in states {
            let wrong = shape::differences(&rows, &ledger.at(watched.user, lsn));
            let who = watched.device.username();
            assert!(wrong.is_empty(), "{who} shows at {lsn} what PostgreSQL never held: {wrong}");
            assert_whole(&rows, watched.user, who);
            assert!(lsn >= watched.at.get(), "{who} went back from {} to {lsn}", watched.at.get());
            watched.at.set(lsn);
            compared += 1;
        }
    }
    ledger.forget(devices.iter().map(|watched| watched.at.get()).min().unwrap());
    compared
}

async fn set(servers: &Servers, setting: &str) {
    let admin = servers.superuser().await;
    admin.batch_execute(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

/// Commits wait, decoded and durable but not visible, and then go on.
async fn standby_away(servers: &Servers) {
    set(servers, "synchronous_standby_names = 'nobody'").await;
    let admin = servers.superuser().await;
    eventually(PATIENCE, "a commit waits for the standby", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        Ok((admin.query_one(sql, &[]).await?.get::<_, i64>(0) > 0).then_some(()))
    })
    .await;
    sleep(STANDBY_AWAY).await;
    set(servers, "synchronous_standby_names = ''").await;
}

/// Kills PostgreSQL while nobody waits for its disk; gives how many acknowledged transactions are gone.
async fn crash(servers: &mut Servers, site: &Site, shared: &Shared) -> usize {
    shared.careless.store(true, Ordering::Relaxed);
    sleep(Duration::from_millis(500)).await;
    servers.postgres_mut().kill9().await;
    let acknowledged = std::mem::take(&mut *shared.acknowledged.lock().unwrap());
    shared.careless.store(false, Ordering::Relaxed);
    servers.postgres_mut().restart().await.unwrap();
    let admin = site.database.connect_superuser().await;
    let sql = "SELECT count(*) FROM unnest($1::uuid[]) AS acknowledged (token)
                WHERE NOT EXISTS (SELECT FROM ledger.careless c WHERE c.token = acknowledged.token)";
    let missing: i64 = admin.query_one(sql, &[&acknowledged]).await.unwrap().get(0);
    usize::try_from(missing).unwrap()
}
