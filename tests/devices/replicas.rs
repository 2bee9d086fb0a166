//! Two replicas behind the shipped balancer, one of them killed under the load of twenty devices.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use futures::future::join_all;
use posduif_model::UserId;
use posduif_sdk::Device;
use posduif_testkit::{Servers, eventually};
use rand::{RngExt, rngs::StdRng};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    balancer::{Balancer, Ports},
    phone::{enroll, is_passing, one, sync},
    run::{Run, from_environment},
    site::{PATIENCE, Settings, Site, address},
};

const DEVICES: usize = 20;
/// A device tries again at once, as an application would that has a network.
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// From the first failed sync to one that works.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// What the devices went through.
#[derive(Default)]
struct Tally {
    syncs: Cell<u32>,
    failed: Cell<u32>,
    /// The longest time without a sync that worked, after one that failed.
    longest: Cell<Duration>,
    sent: RefCell<BTreeSet<String>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_killed_under_load_costs_devices_no_more_than_a_retry() {
    let run = Run::begin("a_replica_killed_under_load");
    let kills: u8 = from_environment("POSDUIF_DEVICES_KILLS", 2);
    let ports = Ports::choose();
    let public_url = Some(format!("http://127.0.0.1:{}", ports.public));
    let settings = Settings { replicas: 2, public_url, ..Settings::default() };
    let mut site = Site::start(Servers::shared().await, settings).await;
    let replicas: Vec<Ipv4Addr> = (0..2).map(|replica| address(replica).parse().unwrap()).collect();
    let at = Ports { public: site.port, admin: site.admin_port };
    let balancer = Balancer::start(ports, &replicas, at).await;

    let mut devices = Vec::new();
    for n in 0..DEVICES {
        let file = site.scratch.join(&format!("{n}.sqlite"));
        devices.push(enroll(&site, &file, &format!("User {n}"), false, None).await);
    }
    for device in &devices {
        // The whole tenant is known before the load begins: no snapshot may be needed later.
        sync(device).await;
    }
    let users: Vec<UserId> = devices.iter().map(Device::user_id).collect();
    let (tally, done) = (Tally::default(), CancellationToken::new());
    let load = async {
        let lanes = (0..).zip(&devices).map(|(n, device)| work(device, &users, run.rng(n), &tally, &done));
        join_all(lanes).await;
    };
    let fate = async {
        for kill in 0..kills {
            let before = balancer.sent("api").await;
            eventually(PATIENCE, "requests go to both replicas", async || {
                let now = balancer.sent("api").await;
                let grown = now.iter().filter(|(server, sent)| **sent > before[*server] + 10.0).count();
                Ok((grown == 2).then_some(()))
            })
            .await;
            let replica = kill % 2;
            site.replicas[usize::from(replica)].kill9().await;
            let at_kill = tally.syncs.get();
            eventually(PATIENCE, "devices go on with one replica", async || {
                Ok((tally.syncs.get() > at_kill + DEVICES as u32).then_some(()))
            })
            .await;
            site.start_again(replica).await;
            balancer.has(2).await;
        }
        done.cancel();
    };
    tokio::join!(load, fate);

    let sql = site.database.connect().await;
    for device in &devices {
        eventually(PATIENCE, "a device's writes have come back to it", async || {
            sync(device).await;
            Ok((one::<i64>(device, "SELECT count(*) FROM posduif_outbox") == 0).then_some(()))
        })
        .await;
    }
    site.settled(&sql).await;
    let mut stored: BTreeMap<UserId, BTreeSet<String>> = BTreeMap::new();
    let mut all = BTreeSet::new();
    for row in sql.query("SELECT id::text, sender_id, recipient_id FROM messages", &[]).await.unwrap() {
        let id: String = row.get(0);
        for party in [row.get(1), row.get(2)] {
            stored.entry(UserId::new(party)).or_default().insert(id.clone());
        }
        all.insert(id);
    }
    assert_eq!(all, *tally.sent.borrow(), "PostgreSQL has other messages than were sent");
    for device in &devices {
        sync(device).await;
        let mut held = BTreeSet::new();
        let connection = device.connection();
        let mut messages = connection.prepare("SELECT id FROM messages").unwrap();
        for id in messages.query_map([], |row| row.get(0)).unwrap() {
            held.insert(id.unwrap());
        }
        let expected = stored.remove(&device.user_id()).unwrap_or_default();
        assert_eq!(held, expected, "{}", device.username());
    }
    for device in &devices {
        assert!(device.rejected().unwrap().is_empty(), "a write of {} was refused", device.username());
    }
    let (syncs, failed, longest) = (tally.syncs.get(), tally.failed.get(), tally.longest.get());
    eprintln!(
        "seed {}: {kills} kills, {syncs} syncs, {failed} failed, {} messages, back after at most {longest:?}",
        run.seed,
        all.len()
    );
    assert!(longest < BACK_WITHIN, "a device got nothing for {longest:?}");
}

/// Writes and syncs until it is told to stop; a sync that fails is tried again.
async fn work(device: &Device, users: &[UserId], mut rng: StdRng, tally: &Tally, done: &CancellationToken) {
    let mut failing: Option<Instant> = None;
    while !done.is_cancelled() {
        if failing.is_none() {
            let to = users[rng.random_range(0..users.len())];
            let id = device.send_message(to, &format!("{}", rng.random::<u32>())).unwrap();
            tally.sent.borrow_mut().insert(id.to_string());
        }
        match device.sync().await {
            Ok(summary) => {
                assert!(!summary.snapshot, "{} had to begin again", device.username());
                tally.syncs.set(tally.syncs.get() + 1);
                if let Some(since) = failing.take() {
                    tally.longest.set(tally.longest.get().max(since.elapsed()));
                }
                sleep(Duration::from_millis(rng.random_range(0..300))).await;
            }
            Err(error) => {
                assert!(is_passing(&error), "{}: {error}", device.username());
                tally.failed.set(tally.failed.get() + 1);
                failing.get_or_insert_with(Instant::now);
                sleep(TRY_AGAIN).await;
            }
        }
    }
}
