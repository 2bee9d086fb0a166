//! Live devices, their streams spread over two replicas: when one replica is killed, its streams come back by the other.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use futures::future::join_all;
use posduif_sdk::{Device, State, StatusChanges};
use posduif_testkit::{Servers, eventually};
use tokio_util::sync::CancellationToken;

use crate::{
    balancer::{Balancer, Ports},
    phone::{agrees, enroll, one},
    run::from_environment,
    shape,
    site::{PATIENCE, Settings, Site, address},
};

const DEVICES: usize = 20;
/// From the death of a replica until every device is live again (P9).
const BACK_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_killed_replica_come_back_by_the_other() {
    let kills: u8 = from_environment("POSDUIF_DEVICES_KILLS", 2);
    let ports = Ports::choose();
    let settings = Settings {
        sql: shape::SQL.to_owned(),
        tables: shape::declarations(),
        replicas: 2,
        public_url: Some(format!("http://127.0.0.1:{}", ports.public)),
        ..Settings::default()
    };
    let mut site = Site::start(Servers::shared().await, settings).await;
    let replicas: Vec<Ipv4Addr> = (0..2).map(|replica| address(replica).parse().unwrap()).collect();
    let at = Ports { public: site.port, admin: site.admin_port };
    let balancer = Balancer::start(ports, &replicas, at).await;
    let mut devices = Vec::new();
    for n in 0..DEVICES {
        let file = site.scratch.join(&format!("{n}.sqlite"));
        devices.push(enroll(&site, &file, &format!("User {n}"), false, None).await);
    }

    let done = CancellationToken::new();
    let lives = join_all(devices.iter().map(|device| device.run(done.cancelled())));
    let shown = join_all(devices.iter().map(|device| watch(device.status(), &done)));
    let story = async {
        all_live(&devices).await;
        eventually(PATIENCE, "streams go to both replicas", async || {
            let streams = balancer.sessions("sse").await?;
            let both = streams.values().filter(|count| **count > 0.0).count() == 2;
            Ok((both && streams.values().sum::<f64>() == DEVICES as f64).then_some(()))
        })
        .await;
        talk(&devices, "before").await;
        let mut longest = Duration::ZERO;
        for kill in 0..kills {
            let replica = kill % 2;
            site.replicas[usize::from(replica)].kill9().await;
            let begun = Instant::now();
            eventually(PATIENCE, "all streams go to the replica that is left", async || {
                let streams = balancer.sessions("sse").await?;
                Ok(streams.values().any(|count| *count == DEVICES as f64).then_some(()))
            })
            .await;
            all_live(&devices).await;
            longest = longest.max(begun.elapsed());
            talk(&devices, &format!("with one replica, {kill}")).await;
            site.start_again(replica).await;
            balancer.has(2).await;
            talk(&devices, &format!("with both again, {kill}")).await;
        }
        done.cancel();
        longest
    };
    let (ended, shown, longest) = tokio::join!(lives, shown, story);
    for end in ended {
        end.unwrap();
    }
    let client = site.database.connect().await;
    for device in &devices {
        agrees(&site, &client, device).await;
        assert!(device.rejected().unwrap().is_empty());
    }
    let states: BTreeSet<String> = shown.into_iter().flatten().map(|state| format!("{state:?}")).collect();
    eprintln!("{kills} kills, all live again after at most {longest:?}, states shown: {states:?}");
    assert!(longest < BACK_WITHIN, "it took {longest:?}");
}

/// Every state that an application was shown; none of them asks for help.
async fn watch(mut changes: StatusChanges, done: &CancellationToken) -> Vec<State> {
    let mut shown = vec![changes.current().state];
    while let Some(Some(status)) = done.run_until_cancelled(changes.next()).await {
        assert!(!matches!(status.state, State::Error(_)), "{status:?}");
        shown.push(status.state);
    }
    shown
}

async fn all_live(devices: &[Device]) {
    eventually(PATIENCE, "every device is live", async || {
        let live = devices.iter().filter(|device| device.status().current().state == State::Live).count();
        Ok((live == devices.len()).then_some(()))
    })
    .await;
}

/// Each writes to the next, and gets what was written to it, without anybody who syncs by hand.
async fn talk(devices: &[Device], words: &str) {
    for (device, next) in devices.iter().zip(devices.iter().cycle().skip(1)) {
        device.send_message(next.user_id(), words).unwrap();
    }
    eventually(PATIENCE, "everybody got the message", async || {
        let sql = format!("SELECT count(*) FROM messages WHERE content = '{words}'");
        let arrived = devices.iter().filter(|device| one::<i64>(device, &sql) == 2).count();
        Ok((arrived == devices.len()).then_some(()))
    })
    .await;
}
