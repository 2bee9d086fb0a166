//! Calls of the webhook in, counters out.

use prometheus::{IntCounterVec, Opts, Registry};

use super::{names, series};

/// What became of the webhook's calls, labelled by tenant.
#[derive(Clone, Debug)]
pub struct WebhookMetrics {
    delivered: IntCounterVec,
    failed: IntCounterVec,
    skipped: IntCounterVec,
}

impl WebhookMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let reason = ["tenant", "reason"];
        Ok(WebhookMetrics {
            delivered: counter(
                names::WEBHOOK_DELIVERED,
                "Commits that the webhook's receiver took.",
                &["tenant"],
            )?,
            failed: counter(
                names::WEBHOOK_FAILED,
                "Calls of the webhook that were not taken and are made again.",
                &reason,
            )?,
            skipped: counter(
                names::WEBHOOK_SKIPPED,
                "Times that the webhook skipped commits and told so.",
                &reason,
            )?,
        })
    }

    /// Begins a tenant's series at zero, where a rate can see their first step.
    pub fn begin(&self, tenant: &str, refusals: &[&str], skips: &[&str]) {
        self.delivered.with_label_values(&[tenant]);
        for reason in refusals {
            self.failed.with_label_values(&[tenant, reason]);
        }
        for reason in skips {
            self.skipped.with_label_values(&[tenant, reason]);
        }
    }

    /// Shows nothing of a tenant any more.
    pub(super) fn forget(&self, tenant: &str) {
        for counter in [&self.delivered, &self.failed, &self.skipped] {
            series::forget(counter, tenant);
        }
    }

    pub fn delivered(&self, tenant: &str, commits: u64) {
        self.delivered.with_label_values(&[tenant]).inc_by(commits);
    }

    pub fn failed(&self, tenant: &str, reason: &str) {
        self.failed.with_label_values(&[tenant, reason]).inc();
    }

    pub fn skipped(&self, tenant: &str, reason: &str) {
        self.skipped.with_label_values(&[tenant, reason]).inc();
    }
}
