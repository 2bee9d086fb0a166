//! `sync.retention`: how much of the log is kept for devices that have been away.

use std::time::Duration;

use serde::Deserialize;

use super::{duration, error::Problems};

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Older changes go; a device that was away for longer takes a snapshot.
    #[serde(with = "duration")]
    pub max_age: Duration,
    /// Payload bytes per tenant; the oldest changes beyond them go, whatever their age.
    pub max_bytes: u64,
    /// Entries of the shared bucket from which on it is worth compacting.
    pub compact_entries: usize,
    /// How often all of this is looked at.
    #[serde(with = "duration")]
    pub interval: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        RetentionConfig {
            max_age: Duration::from_secs(7 * 86_400),
            max_bytes: 1 << 30,
            compact_entries: 10_000,
            interval: Duration::from_secs(60),
        }
    }
}

impl RetentionConfig {
    pub(super) fn check(&self, problems: &mut Problems) {
        let seconds = |from, to| Duration::from_secs(from)..=Duration::from_secs(to);
        problems.range("sync.retention.max_age", self.max_age, seconds(60, 366 * 86_400));
        problems.range("sync.retention.max_bytes", self.max_bytes, 1 << 20..=1 << 42);
        problems.range("sync.retention.compact_entries", self.compact_entries, 100..=10_000_000);
        problems.range("sync.retention.interval", self.interval, seconds(1, 3_600));
    }
}
