//! What the ingester counts; names are constants so that alerts and code cannot drift apart.

use posduif_runtime::metrics::Metrics;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

const COMMITS: &str = "posduif_ingester_commits_total";
const CHANGES: &str = "posduif_ingester_changes_total";
const EPOCHS: &str = "posduif_ingester_epochs_opened_total";
const FAILURES: &str = "posduif_ingester_session_failures_total";
const RETRIES: &str = "posduif_ingester_log_retries_total";
const TRIMMED: &str = "posduif_ingester_trimmed_entries_total";
const COMPACTED: &str = "posduif_ingester_compacted_entries_total";
const ROWS_LEFT_OUT: &str = "posduif_ingester_rows_left_out_total";
const WATERMARK: &str = "posduif_ingester_watermark_lsn_bytes";
const CONFIRMED: &str = "posduif_ingester_confirmed_lsn_bytes";

/// The counters of all tenants, labelled by tenant.
#[derive(Clone, Debug)]
pub struct IngesterMetrics {
    /// Transactions stored in the log.
    pub commits: IntCounterVec,
    /// Raw row messages of those transactions.
    pub changes: IntCounterVec,
    /// Epochs opened, by reason.
    pub epochs: IntCounterVec,
    /// Sessions that ended with an error and were begun again.
    pub failures: IntCounterVec,
    /// Attempts to use the log that Redis could not serve.
    pub retries: IntCounterVec,
    /// Entries removed because they were too old or too many.
    pub trimmed: IntCounterVec,
    /// Entries removed from the shared bucket because newer ones displaced them.
    pub compacted: IntCounterVec,
    /// Row versions that nobody sees because they are too large, by table and reason.
    pub rows_left_out: IntCounterVec,
    /// The end LSN of what readers may see.
    pub watermark: IntGaugeVec,
    /// The LSN confirmed to PostgreSQL.
    pub confirmed: IntGaugeVec,
}

impl IngesterMetrics {
    /// Registers everything; fails only when it is registered twice.
    pub fn register(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let counter = |name, help, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            metrics.registry().register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name, help| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["tenant"])?;
            metrics.registry().register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(IngesterMetrics {
            commits: counter(COMMITS, "Transactions stored in the log.", &["tenant"])?,
            changes: counter(CHANGES, "Row messages stored in the log.", &["tenant"])?,
            epochs: counter(
                EPOCHS,
                "Epochs opened: every device of the tenant resyncs.",
                &["tenant", "reason"],
            )?,
            failures: counter(FAILURES, "Sessions that failed and were begun again.", &["tenant"])?,
            retries: counter(RETRIES, "Uses of the log that Redis could not serve.", &["tenant"])?,
            trimmed: counter(TRIMMED, "Log entries removed by retention.", &["tenant"])?,
            compacted: counter(COMPACTED, "Displaced entries removed from the shared bucket.", &["tenant"])?,
            rows_left_out: counter(
                ROWS_LEFT_OUT,
                "Row versions that are too large to be synced: nobody sees them.",
                &["tenant", "table", "reason"],
            )?,
            watermark: gauge(WATERMARK, "WAL position up to which readers may see changes.")?,
            confirmed: gauge(CONFIRMED, "WAL position confirmed to PostgreSQL.")?,
        })
    }
}
