//! What the ingester counts; names are constants so that alerts and code cannot drift apart.

mod fleet;
mod live;
pub mod names;
mod series;
mod webhook;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use posduif_model::TenantId;
use posduif_runtime::metrics::Metrics;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::{epoch, tally::Count, vitals::Vitals};

pub use fleet::FleetMetrics;
pub use webhook::WebhookMetrics;

/// The label of all tables that are not declared.
const OTHER: &str = "other";

const CHUNK_BYTES: [f64; 9] =
    [256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 524_288.0, 1_048_576.0, 4_194_304.0];
const CHUNK_ENTRIES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1_000.0, 2_000.0];
/// From a local Redis to one that is away for a while.
const APPEND: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
/// From the quickest way through to a commit that waited for its standby.
const PUBLISH: [f64; 12] = [0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0];

/// The metrics of all tenants, labelled by tenant.
#[derive(Clone, Debug)]
pub struct IngesterMetrics {
    pub commits: IntCounterVec,
    changes: IntCounterVec,
    left_out: IntCounterVec,
    changes_left_out: IntCounterVec,
    stored_bytes: IntCounterVec,
    chunk_bytes: HistogramVec,
    chunk_entries: HistogramVec,
    append: HistogramVec,
    publish: HistogramVec,
    /// Epochs opened, by reason.
    pub epochs: IntCounterVec,
    pub slots_created: IntCounterVec,
    pub take_overs: IntCounterVec,
    /// Sessions that ended with an error and were begun again, by what failed.
    pub failures: IntCounterVec,
    /// Attempts to use the log that Redis could not serve.
    pub retries: IntCounterVec,
    /// Entries removed because they were too old or too many.
    pub trimmed: IntCounterVec,
    /// Entries removed from the shared bucket because newer ones displaced them.
    pub compacted: IntCounterVec,
    /// Row versions that nobody sees because they are too large, by table and reason.
    pub rows_left_out: IntCounterVec,
    /// 1 while the configuration's files cannot be used as they are now.
    pub configuration_refused: IntGauge,
    /// WAL that slots keep which belong to no tenant.
    pub orphan_slots: IntGaugeVec,
    /// Walsenders of ingesters that had lost their lease.
    pub evictions: IntCounterVec,
    pub fleet: FleetMetrics,
    pub webhook: WebhookMetrics,
    tenants: Arc<Mutex<Tenants>>,
}

/// The vitals of every tenant that this process works for, read at each scrape, and the tenants that nobody works for.
type Tenants = BTreeMap<TenantId, Option<Arc<Vitals>>>;

impl IngesterMetrics {
    /// Registers everything; fails only when it is registered twice.
    pub fn register(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let registry = metrics.registry();
        let counter = |name, help, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let histogram = |name, help, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histogram = HistogramVec::new(options, &["tenant"])?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let build =
            IntGaugeVec::new(Opts::new(names::BUILD, "Always 1; the version is a label."), &["version"])?;
        registry.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let tenants: Arc<Mutex<Tenants>> = Arc::default();
        registry.register(Box::new(live::Live::new(Arc::clone(&tenants))?))?;
        let tenant = ["tenant"];
        Ok(IngesterMetrics {
            commits: counter(names::COMMITS, "Transactions stored in the log.", &tenant)?,
            changes: counter(
                names::CHANGES,
                "Row messages of those transactions.",
                &["tenant", "table", "op"],
            )?,
            left_out: counter(names::LEFT_OUT, "Transactions above the cap, not stored.", &tenant)?,
            changes_left_out: counter(names::CHANGES_LEFT_OUT, "Row messages of those.", &tenant)?,
            stored_bytes: counter(names::STORED_BYTES, "Payload bytes stored in the log.", &tenant)?,
            chunk_bytes: histogram(
                names::CHUNK_BYTES,
                "Payload bytes of one write to the log.",
                &CHUNK_BYTES,
            )?,
            chunk_entries: histogram(
                names::CHUNK_ENTRIES,
                "Entries of one write to the log.",
                &CHUNK_ENTRIES,
            )?,
            append: histogram(
                names::APPEND,
                "Time until a write to the log was stored, outages included.",
                &APPEND,
            )?,
            publish: histogram(names::PUBLISH, "Time from commit to visible for readers.", &PUBLISH)?,
            epochs: counter(
                names::EPOCHS,
                "Epochs opened: every device of the tenant resyncs.",
                &["tenant", "reason"],
            )?,
            slots_created: counter(names::SLOTS_CREATED, "Replication slots created.", &tenant)?,
            take_overs: counter(names::TAKE_OVERS, "Sessions that took the tenant over.", &tenant)?,
            failures: counter(
                names::FAILURES,
                "Sessions that failed and were begun again.",
                &["tenant", "reason"],
            )?,
            retries: counter(names::RETRIES, "Uses of the log that Redis could not serve.", &tenant)?,
            trimmed: counter(names::TRIMMED, "Log entries removed by retention.", &tenant)?,
            compacted: counter(
                names::COMPACTED,
                "Displaced entries removed from the shared bucket.",
                &tenant,
            )?,
            rows_left_out: counter(
                names::ROWS_LEFT_OUT,
                "Row versions that are too large to be synced: nobody sees them.",
                &["tenant", "table", "reason"],
            )?,
            evictions: counter(
                names::EVICTIONS,
                "Walsenders ended that held a slot for an ingester without a lease.",
                &tenant,
            )?,
            fleet: FleetMetrics::register(registry)?,
            configuration_refused: {
                let help = "1 while the configuration's files cannot be used as they are now.";
                let gauge = IntGauge::new(names::CONFIGURATION_REFUSED, help)?;
                registry.register(Box::new(gauge.clone()))?;
                gauge
            },
            orphan_slots: {
                let help = "WAL kept by a slot that nobody follows and that belongs to no configured tenant.";
                let gauge = IntGaugeVec::new(Opts::new(names::ORPHAN_SLOT, help), &["slot"])?;
                registry.register(Box::new(gauge.clone()))?;
                gauge
            },
            webhook: WebhookMetrics::register(registry)?,
            tenants,
        })
    }

    /// What is known of a tenant. The first call begins its series at zero, where a rate can see their first step.
    pub fn vitals(&self, tenant: &TenantId) -> Arc<Vitals> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(vitals)) = tenants.get(tenant) {
            return Arc::clone(vitals);
        }
        let plain = [
            &self.commits,
            &self.left_out,
            &self.changes_left_out,
            &self.stored_bytes,
            &self.slots_created,
            &self.take_overs,
            &self.retries,
            &self.trimmed,
            &self.compacted,
            &self.evictions,
        ];
        for counter in plain {
            counter.with_label_values(&[tenant.as_str()]);
        }
        for reason in epoch::WORDS {
            self.epochs.with_label_values(&[tenant.as_str(), reason]);
        }
        let vitals = Arc::new(Vitals::new(Instant::now()));
        tenants.insert(tenant.clone(), Some(Arc::clone(&vitals)));
        vitals
    }

    /// This process works for a tenant no longer: nothing that it counted or saw of it is shown any more.
    pub fn forget(&self, tenant: &TenantId) {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner).remove(tenant);
        let counters = [
            &self.commits,
            &self.changes,
            &self.left_out,
            &self.changes_left_out,
            &self.stored_bytes,
            &self.epochs,
            &self.slots_created,
            &self.take_overs,
            &self.failures,
            &self.retries,
            &self.trimmed,
            &self.compacted,
            &self.rows_left_out,
            &self.evictions,
        ];
        let histograms = [&self.chunk_bytes, &self.chunk_entries, &self.append, &self.publish];
        counters.into_iter().for_each(|counter| series::forget(counter, tenant.as_str()));
        histograms.into_iter().for_each(|histogram| series::forget(histogram, tenant.as_str()));
        self.webhook.forget(tenant.as_str());
    }

    /// Nobody works for these tenants: somebody has to say so, or no alert would.
    pub fn unheld(&self, unheld: &BTreeSet<TenantId>) {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|tenant, vitals| vitals.is_some() || unheld.contains(tenant));
        for tenant in unheld {
            tenants.entry(tenant.clone()).or_insert(None);
        }
        self.fleet.unheld.set(i64::try_from(unheld.len()).unwrap_or(i64::MAX));
    }

    /// A transaction is whole in the batch: so many row messages of each table, stored or left out.
    ///
    /// Gives whether a synced table was among them.
    pub fn transaction(&self, tenant: &str, tally: &[Count], left_out: bool) -> bool {
        self.commits.with_label_values(&[tenant]).inc();
        if left_out {
            self.left_out.with_label_values(&[tenant]).inc();
        }
        for count in tally {
            let table = count.table.as_ref().map_or_else(|| OTHER.to_owned(), ToString::to_string);
            let Count { inserts, updates, deletes, truncates, .. } = *count;
            let ops =
                [("insert", inserts), ("update", updates), ("delete", deletes), ("truncate", truncates)];
            for (op, messages) in ops.into_iter().filter(|(_, messages)| *messages > 0) {
                self.changes.with_label_values(&[tenant, &table, op]).inc_by(messages);
                if left_out {
                    self.changes_left_out.with_label_values(&[tenant]).inc_by(messages);
                }
            }
        }
        tally.iter().any(|count| count.table.is_some())
    }

    /// One write to the log succeeded.
    pub fn stored(&self, tenant: &str, bytes: usize, entries: usize, took: Duration) {
        self.stored_bytes.with_label_values(&[tenant]).inc_by(bytes.try_into().unwrap_or(u64::MAX));
        self.chunk_bytes.with_label_values(&[tenant]).observe(float(bytes));
        self.chunk_entries.with_label_values(&[tenant]).observe(float(entries));
        self.append.with_label_values(&[tenant]).observe(took.as_secs_f64());
    }

    /// A commit became visible for readers so long after PostgreSQL wrote it, by PostgreSQL's own clock.
    pub fn published(&self, tenant: &str, after: Duration) {
        self.publish.with_label_values(&[tenant]).observe(after.as_secs_f64());
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of chunks lie far below 2^53")]
fn float(size: usize) -> f64 {
    size as f64
}
