//! Eight tenants on two ingesters with a fault in some of them: the others must not notice, and none loses anything.

use std::{net::Ipv4Addr, time::Duration};

use posduif_testkit::{Servers, chaos::Proxy};
use rand::RngExt;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    fleet::{Fleet, spread},
    run::{Run, from_environment},
    tenant::{Settings, Tenant, insert_lsn},
};

const TENANTS: usize = 8;
/// The first ones have trouble.
const SICK: usize = 4;
const WRITERS: i32 = 1;
const PAUSE: Duration = Duration::from_millis(400);
/// So long a fault lasts.
const SPELL: Duration = Duration::from_secs(5);
/// What the others' readers may have to wait for a commit meanwhile, on a busy machine.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Every connection of the ingester is ended.
    Ended,
    /// Nothing gets through to PostgreSQL or back, and nobody says so.
    Swallowed,
    /// The engine's tables are locked.
    Locked,
    /// More in one transaction than all the others write.
    Enormous,
}

const ALL: [Trouble; 4] = [Trouble::Ended, Trouble::Swallowed, Trouble::Locked, Trouble::Enormous];

#[tokio::test(flavor = "multi_thread")]
async fn the_trouble_of_some_tenants_is_no_other_tenants_and_none_loses_or_doubles_anything() {
    let run = Run::begin("the_trouble_of_some_tenants");
    let rounds: u32 = from_environment("POSDUIF_FAULT_TROUBLES", 1);
    let mut rng = run.rng(100);
    let servers = Servers::shared().await;
    let mut proxies = Vec::new();
    let mut settings = vec![Settings::default(); TENANTS];
    for sick in settings.iter_mut().take(SICK) {
        let proxy = Proxy::start((Ipv4Addr::LOCALHOST, servers.postgres().port()).into()).await;
        sick.postgres_port = Some(proxy.address().port());
        proxies.push(proxy);
    }
    let mut fleet = Fleet::prepare(&run, servers, &settings).await;
    let pair = [fleet.ingester().await, fleet.ingester().await];
    fleet.write(&run, WRITERS, PAUSE).await;
    fleet.shared_by(&[&pair[0], &pair[1]]).await;
    let mut waits = Vec::new();
    for round in 0..rounds {
        // Each of them has another trouble, and not always the same.
        let offset = rng.random_range(0..ALL.len());
        let troubles: Vec<Trouble> = (0..SICK).map(|sick| ALL[(sick + offset) % ALL.len()]).collect();
        let mut spells = Vec::new();
        for ((trouble, proxy), campaign) in troubles.iter().zip(&proxies).zip(&fleet.campaigns) {
            spells.extend(begin(*trouble, proxy, &campaign.tenant).await);
        }
        let until = tokio::time::Instant::now() + SPELL;
        while tokio::time::Instant::now() < until {
            for (_, proxy) in
                troubles.iter().zip(&proxies).filter(|(trouble, _)| matches!(trouble, Trouble::Ended))
            {
                proxy.cut_all();
            }
            let well = rng.random_range(SICK..TENANTS);
            let tenant = &fleet.campaigns[well].tenant;
            let client = tenant.database.connect().await;
            let (_, took) = tenant.reached(insert_lsn(&client).await).await;
            assert!(
                took < LONGEST_WAIT,
                "round {round}: tenant {well} waited {took:?} while others had {troubles:?}"
            );
            waits.push(took);
        }
        proxies.iter().for_each(|proxy| proxy.black_hole(false));
        drop(spells);
        fleet.back().await;
    }
    let looks = waits.len();
    fleet.finish(&run).await;
    eprintln!(
        "{rounds} rounds, {looks} looks at tenants without trouble: their commits were seen after {:?}",
        spread(waits)
    );
}

/// What lasts while its task does.
async fn begin(trouble: Trouble, proxy: &Proxy, tenant: &Tenant) -> Option<AbortOnDropHandle<()>> {
    let sql = match trouble {
        Trouble::Ended => return None,
        Trouble::Swallowed => {
            proxy.black_hole(true);
            return None;
        }
        Trouble::Locked => {
            "BEGIN; LOCK TABLE posduif_engine.heartbeat, posduif_engine.sync_epoch; SELECT pg_sleep(60)"
        }
        Trouble::Enormous => {
            "WITH numbers AS (SELECT 1000000 + n AS id FROM generate_series(1, 8000) n)
             INSERT INTO parents SELECT id, repeat(md5(id::text), 20) FROM numbers;
             DELETE FROM parents WHERE id > 1000000"
        }
    };
    let client = tenant.database.connect().await;
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        client.batch_execute(sql).await.unwrap();
    })))
}
