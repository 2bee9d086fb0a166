//! Several tenants, each with its load and its oracle, in, the ingesters that share them out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::join_all;
use posduif_changelog::{RedisPool, Timeouts, fleet, pool};
use posduif_testkit::{Process, Servers, eventually};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    campaign::Campaign,
    run::Run,
    tenant::{PATIENCE, Settings, Tenant, insert_lsn},
};

/// Tenants that are alike.
pub struct Fleet {
    pub campaigns: Vec<Campaign>,
    redis: RedisPool,
}

/// One of the ingesters.
pub struct Ingester {
    pub process: Process,
    name: String,
}

impl Fleet {
    /// Makes a tenant for each of these settings; nothing runs yet.
    pub async fn prepare(run: &Run, servers: &Servers, settings: &[Settings]) -> Self {
        let mut campaigns = join_all(settings.iter().map(|one| Campaign::prepare(run, servers, one))).await;
        for (campaign, part) in campaigns.iter_mut().zip(1_000..) {
            campaign.part = part * 1_000;
        }
        let redis = pool(servers.redis_url().as_str(), 2, Timeouts::default()).unwrap();
        Fleet { campaigns, redis }
    }

    pub async fn ingester(&self) -> Ingester {
        let tenants: Vec<&Tenant> = self.campaigns.iter().map(|campaign| &campaign.tenant).collect();
        let (process, port) = Tenant::ingester_of(&tenants).await;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        Ingester { process, name: format!("{}:{port}", host.trim()) }
    }

    /// A reader of each tenant joins, and writers set to work.
    pub async fn write(&mut self, run: &Run, writers: i32, pause: Duration) {
        for campaign in &mut self.campaigns {
            campaign.join().await;
            campaign.write(run, writers, pause);
        }
    }

    /// The places of the tenants that this ingester works for, as Redis has it.
    pub async fn held_by(&self, ingester: &Ingester) -> Vec<usize> {
        let names = fleet::at_work(&self.redis).await.unwrap_or_default();
        let holder = |campaign: &Campaign| names.get(&campaign.tenant.database.name().parse().unwrap());
        let of = |place: &usize| holder(&self.campaigns[*place]).is_some_and(|name| *name == ingester.name);
        (0..self.campaigns.len()).filter(of).collect()
    }

    /// Waits until these share the tenants evenly and all tenants flow.
    pub async fn shared_by(&self, ingesters: &[&Ingester]) {
        eventually(PATIENCE, "the tenants are shared evenly", async || {
            let mut sizes = Vec::new();
            for ingester in ingesters {
                sizes.push(self.held_by(ingester).await.len());
            }
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            let all = sizes.iter().sum::<usize>() == self.campaigns.len();
            anyhow::ensure!(all && most - least <= 1, "{sizes:?}");
            Ok(Some(()))
        })
        .await;
        self.back().await;
    }

    /// How long it takes until everything that is written now is published, by tenant.
    pub async fn back(&self) -> Vec<Duration> {
        let back = async |campaign: &Campaign| {
            let client = campaign.tenant.database.connect().await;
            campaign.tenant.reached(insert_lsn(&client).await).await.1
        };
        join_all(self.campaigns.iter().map(back)).await
    }

    /// A mark in every tenant, and everything compared up to it. An epoch that was opened fails it.
    pub async fn compare(&mut self) {
        for campaign in &mut self.campaigns {
            campaign.compare().await;
        }
    }

    pub async fn finish(self, run: &Run) {
        for campaign in self.campaigns {
            campaign.finish(run).await;
        }
    }

    /// Watches how long each tenant goes without a publication.
    pub async fn watch(&self) -> Vec<Gaps> {
        join_all(self.campaigns.iter().map(Gaps::watch)).await
    }
}

/// The longest time in which nothing was published, although something was committed all the time.
pub struct Gaps {
    _watching: AbortOnDropHandle<()>,
    longest: Arc<Mutex<Duration>>,
}

impl Gaps {
    async fn watch(campaign: &Campaign) -> Self {
        let (log, longest) = (campaign.tenant.log.clone(), Arc::<Mutex<_>>::default());
        let client = campaign.tenant.database.connect().await;
        let told = Arc::clone(&longest);
        let watching = tokio::spawn(async move {
            let (mut seen, mut since) = (None, Instant::now());
            loop {
                let tick = "SELECT pg_logical_emit_message(true, 'tick', '')";
                client.batch_execute(tick).await.unwrap();
                if let Ok(Some(state)) = log.state().await {
                    let still = since.elapsed();
                    let mut longest = told.lock().unwrap();
                    *longest = still.max(*longest);
                    if seen.replace(state.watermark.end) != Some(state.watermark.end) {
                        since = Instant::now();
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Gaps { _watching: AbortOnDropHandle::new(watching), longest }
    }

    /// From now on it is counted anew.
    pub fn begin(&self) {
        *self.longest.lock().unwrap() = Duration::ZERO;
    }

    pub fn longest(&self) -> Duration {
        *self.longest.lock().unwrap()
    }
}

/// Some durations in short.
pub fn spread(mut durations: Vec<Duration>) -> BTreeMap<&'static str, Duration> {
    durations.sort();
    let at = |part: usize| durations[(durations.len() - 1) * part / 100];
    BTreeMap::from([("p50", at(50)), ("p90", at(90)), ("p99", at(99)), ("the longest", at(100))])
}
