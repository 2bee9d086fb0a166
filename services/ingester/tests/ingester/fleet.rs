//! Several ingesters as real processes that share tenants.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures::future::join_all;
use posduif_changelog::{Timeouts, fleet::at_work, pool};
use posduif_ingester::metrics::names;
use posduif_model::{Epoch, UserId};
use posduif_testkit::{INGESTER, Servers, eventually};

use crate::{
    fixture::{SOON, Tenant},
    process::Ingester,
};

/// So long an ingester is believed to live that does not ask.
const LEASE: Duration = Duration::from_secs(5);

/// Tenants that all ingesters know.
struct Shop {
    redis: String,
    tenants: Vec<Tenant>,
}

impl Shop {
    async fn open(servers: &Servers, tenants: usize) -> Self {
        let tenants = join_all((0..tenants).map(|_| Tenant::create(servers))).await;
        Shop { redis: servers.redis_url_of(INGESTER), tenants }
    }

    async fn ingester(&self) -> Ingester {
        self.ingester_of("").await
    }

    /// One whose tenants have these keys as well.
    async fn ingester_of(&self, keys: &str) -> Ingester {
        let entry = |tenant: &Tenant| format!("{{url: '{}'{keys}}}", tenant.database.ingester_url());
        let entries: Vec<String> = self.tenants.iter().map(entry).collect();
        Ingester::spawn(&entries, &self.redis, "[]", "info", "").await
    }

    /// Waits until these ingesters share all tenants evenly, each tenant with one of them.
    async fn shared_by(&self, ingesters: &[&Ingester]) {
        let all: BTreeSet<String> = self.tenants.iter().map(|tenant| tenant.id().to_string()).collect();
        eventually(3 * SOON, "the tenants are shared evenly", async || {
            let mut held = Vec::new();
            for ingester in ingesters {
                held.push(ingester.tenants().await?);
            }
            let sizes: Vec<usize> = held.iter().map(BTreeSet::len).collect();
            let even = sizes.iter().max() <= sizes.iter().min().map(|least| least + 1).as_ref();
            let together: BTreeSet<String> = held.iter().flatten().cloned().collect();
            let whole = together == all && sizes.iter().sum::<usize>() == all.len();
            anyhow::ensure!(even && whole, "{sizes:?}");
            Ok(Some(()))
        })
        .await;
        for ingester in ingesters {
            ingester.ready().await;
        }
    }

    /// The names of those that work for a tenant.
    async fn at_work(&self) -> BTreeSet<String> {
        let redis = pool(self.redis.as_str(), 1, Timeouts::default()).unwrap();
        let mut names = at_work(&redis).await.unwrap();
        // Other tests have ingesters, too.
        names.retain(|tenant, _| self.tenants.iter().any(|own| own.id() == tenant));
        names.into_values().collect()
    }

    /// What is committed now in every tenant reaches its readers; gives the epochs and how long it took.
    async fn all_flow(&self) -> (Vec<Epoch>, Duration) {
        let begun = Instant::now();
        for tenant in &self.tenants {
            tenant.client.batch_execute("SELECT pg_logical_emit_message(true, 'x', 'x')").await.unwrap();
        }
        let states = join_all(self.tenants.iter().map(Tenant::caught_up)).await;
        (states.iter().map(|state| state.epoch).collect(), begun.elapsed())
    }
}

/// How often this process has taken a tenant over since it began.
fn take_overs(ingester: &Ingester) -> usize {
    ingester.process.log().matches("took the tenant over").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn ingesters_that_come_and_go_share_the_tenants_evenly_and_say_nothing_of_others() {
    let shop = Shop::open(Servers::shared().await, 7).await;
    let mut first = shop.ingester().await;
    shop.shared_by(&[&first]).await;
    let (epochs, _) = shop.all_flow().await;
    let second = shop.ingester().await;
    shop.shared_by(&[&first, &second]).await;
    let third = shop.ingester().await;
    shop.shared_by(&[&first, &second, &third]).await;
    assert_eq!(shop.all_flow().await.0, epochs);

    for ingester in [&first, &second, &third] {
        let held = ingester.tenants().await.unwrap();
        // What has just gone is still counted for a moment.
        let scrape = ingester
            .until("only its own tenants are there", |scrape| {
                let named = |labels: &BTreeMap<String, String>| labels.get("tenant").cloned();
                let named: BTreeSet<String> =
                    scrape.labels().filter_map(|(_, labels)| named(labels)).collect();
                (named == held)
                    .then(|| [names::HELD, names::KNOWN, names::UNHELD].map(|name| scrape.value(name, &[])))
            })
            .await;
        #[expect(clippy::cast_precision_loss, reason = "seven tenants")]
        let held = held.len() as f64;
        assert_eq!(scrape, [held, 7.0, 0.0]);
    }

    // One says goodbye, one does not.
    assert_eq!(first.process.terminate(SOON).await, 0);
    assert_eq!(shop.at_work().await, BTreeSet::from([second.name(), third.name()]), "it kept its leases");
    let (gone, gap) = shop.all_flow().await;
    shop.shared_by(&[&second, &third]).await;
    let mut third = third;
    third.process.kill9().await;
    let (killed, longer) = shop.all_flow().await;
    shop.shared_by(&[&second]).await;
    assert_eq!((&gone, &killed), (&epochs, &epochs), "an epoch was opened");
    eprintln!("all flow again {gap:?} after a goodbye, {longer:?} after a death");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingester_killed_and_started_again_in_its_place_need_not_wait_for_its_own_lease() {
    let shop = Shop::open(Servers::shared().await, 2).await;
    let mut ingester = shop.ingester().await;
    shop.shared_by(&[&ingester]).await;
    let (epochs, _) = shop.all_flow().await;
    ingester.process.kill9().await;
    ingester.process.start_again();
    let (again, gap) = shop.all_flow().await;
    assert_eq!(again, epochs);
    eprintln!("all flow again after {gap:?}");
    assert!(gap < LEASE, "it waited for the dead one: {gap:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tenant_moves_because_redis_froze_or_forgot_who_works_for_whom() {
    let servers = Servers::private().await;
    let shop = Shop::open(&servers, 4).await;
    let (one, two) = (shop.ingester().await, shop.ingester().await);
    shop.shared_by(&[&one, &two]).await;
    let (epochs, _) = shop.all_flow().await;
    let before = (take_overs(&one), take_overs(&two));
    let mut redis = shop.tenants[0].redis().await;

    let frozen = LEASE + Duration::from_secs(3);
    let sleep = redis::cmd("DEBUG").arg("SLEEP").arg(frozen.as_secs()).to_owned();
    // Its answer comes too late for the connection.
    let _ = sleep.query_async::<()>(&mut redis).await;
    assert_eq!(shop.all_flow().await.0, epochs);
    let mut redis = shop.tenants[0].redis().await;
    for _ in 0..2 {
        let keys = ["members", "facts", "leases", "clock"].map(|part| format!("posduif:{{@}}:fleet:{part}"));
        let removed: i64 = redis::cmd("DEL").arg(&keys).query_async(&mut redis).await.unwrap();
        assert_eq!(removed, 4);
        shop.shared_by(&[&one, &two]).await;
        assert_eq!(shop.all_flow().await.0, epochs);
        eventually(SOON, "everybody is known again", async || {
            let members: i64 = redis::cmd("HLEN").arg(&keys[0]).query_async(&mut redis).await?;
            let leases: i64 = redis::cmd("HLEN").arg(&keys[2]).query_async(&mut redis).await?;
            Ok(((members, leases) == (2, 4)).then_some(()))
        })
        .await;
    }
    assert_eq!((take_overs(&one), take_overs(&two)), before, "a tenant moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_ingester_loses_its_tenants_and_lets_them_be_when_it_wakes() {
    freezes("").await;
}

/// PostgreSQL does not notice at all that a client without a stream is frozen.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_ingester_that_polls_loses_its_tenants_and_lets_them_be_when_it_wakes() {
    freezes(", wal: false").await;
}

async fn freezes(keys: &str) {
    let shop = Shop::open(Servers::shared().await, 2).await;
    let mut frozen = shop.ingester_of(keys).await;
    shop.shared_by(&[&frozen]).await;
    let (epochs, _) = shop.all_flow().await;
    let other = shop.ingester_of(keys).await;
    shop.shared_by(&[&frozen, &other]).await;
    frozen.process.sigstop();
    let (again, gap) = shop.all_flow().await;
    assert_eq!(again, epochs);
    eprintln!("all flow again {gap:?} after a freeze");
    // A walsender whose client is silent would hold its slot for 15 s.
    assert!(gap < Duration::from_secs(14), "the slot of the frozen one was waited for: {gap:?}");
    let ended = other.scrape().await.find(names::EVICTIONS, &[]);
    assert_eq!(ended.iter().sum::<f64>(), 1.0);
    let before = frozen.process.log().len();
    frozen.process.sigcont();
    eventually(SOON, "it notices", async || {
        Ok(frozen.process.log()[before..]
            .contains("ending the session; another ingester works")
            .then_some(()))
    })
    .await;
    // It is one of them again, and gets its share after a while.
    shop.shared_by(&[&frozen, &other]).await;
    assert_eq!(shop.all_flow().await.0, epochs);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_installation_that_names_the_same_tenant_takes_it_from_nobody() {
    let servers = Servers::private().await;
    let elsewhere = Servers::private().await;
    let shop = Shop::open(&servers, 1).await;
    let ingester = shop.ingester().await;
    shop.shared_by(&[&ingester]).await;
    let (epochs, _) = shop.all_flow().await;
    let tenant = &shop.tenants[0];
    let entry = format!("{{url: '{}'}}", tenant.database.ingester_url());
    let stranger = Ingester::spawn(&[entry], &elsewhere.redis_url_of(INGESTER), "[]", "info", "").await;
    stranger.says(tenant.id().as_str(), "not_ready", "is active for PID").await;
    // It tries again and again.
    stranger
        .until("it has tried some times", |scrape| {
            let failures = scrape.find(names::FAILURES, &[]);
            (failures.iter().sum::<f64>() >= 3.0).then_some(())
        })
        .await;
    assert_eq!(stranger.scrape().await.value(names::EVICTIONS, &[]), 0.0);
    assert_eq!(shop.all_flow().await.0, epochs);
    assert_eq!(take_overs(&ingester), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenant_that_hangs_keeps_no_other_waiting() {
    let servers = Servers::shared().await;
    let shop = Shop::open(servers, 3).await;
    let ingester = shop.ingester().await;
    shop.shared_by(&[&ingester]).await;
    let _ = shop.all_flow().await;
    let (sick, well) = shop.tenants.split_first().unwrap();
    // Nothing of the sick one's engine can be read or written.
    let mut locker = sick.database.connect().await;
    let lock = locker.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE posduif_engine.heartbeat, posduif_engine.sync_epoch").await.unwrap();
    ingester.says(sick.id().as_str(), "not_ready", "").await;
    let bobs: Vec<UserId> = join_all(well.iter().map(|tenant| tenant.user("Bob"))).await;
    let mut slowest = Duration::ZERO;
    for n in 0..20 {
        for (tenant, bob) in well.iter().zip(&bobs) {
            let begun = Instant::now();
            tenant.message(*bob, *bob, &format!("{n}")).await;
            tenant.caught_up().await;
            slowest = slowest.max(begun.elapsed());
        }
    }
    eprintln!("the others' slowest commit was seen after {slowest:?}");
    assert!(slowest < SOON / 4, "{slowest:?}");
    drop(lock);
    ingester.ready().await;
}
