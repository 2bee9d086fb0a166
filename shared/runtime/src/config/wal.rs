//! `sync.wal`: how the ingester reads PostgreSQL's write-ahead log.

use std::{ops::RangeInclusive, time::Duration};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{duration, error::Problems};

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WalConfig {
    /// Off, the ingester polls the tables.
    pub enabled: bool,
    /// Empty means one per database, see [`WalConfig::slot_name`].
    pub slot_name: String,
    pub publication: String,
    /// The most transactions gathered into one write to Redis.
    pub batch_size: usize,
    /// The longest pause between two looks at the source: the poll interval, and the check of an idle stream.
    #[serde(with = "duration")]
    pub read_interval: Duration,
    /// How long a tenant must have had no change and no connected device to be polled instead; zero: never.
    #[serde(with = "duration")]
    pub cold_after: Duration,
    /// The poll interval of such a tenant.
    #[serde(with = "duration")]
    pub cold_interval: Duration,
    /// How often a row is written so that an idle tenant's watermark and slot advance.
    #[serde(with = "duration")]
    pub heartbeat_interval: Duration,
    /// How old the watermark must be before its LSN is confirmed to PostgreSQL where Redis has no WAITAOF.
    #[serde(with = "duration")]
    pub confirm_delay: Duration,
    /// How often PostgreSQL hears from the ingester, busy or not.
    #[serde(with = "duration")]
    pub status_interval: Duration,
    /// The size at which a large transaction is written in parts.
    pub chunk_bytes: usize,
    /// A transaction with more payload than this is not stored: devices below it take a snapshot.
    pub transaction_cap_bytes: usize,
}

impl Default for WalConfig {
    fn default() -> Self {
        WalConfig {
            enabled: true,
            slot_name: String::new(),
            publication: "posduif".to_owned(),
            batch_size: 100,
            read_interval: Duration::from_secs(1),
            cold_after: Duration::ZERO,
            cold_interval: Duration::from_secs(5),
            heartbeat_interval: Duration::from_secs(10),
            confirm_delay: Duration::from_secs(10),
            status_interval: Duration::from_secs(5),
            chunk_bytes: 512 << 10,
            transaction_cap_bytes: 128 << 20,
        }
    }
}

/// PostgreSQL's NAMEDATALEN less the closing zero.
const NAME_BYTES: usize = 63;

impl WalConfig {
    /// The slot of a tenant's database: the configured name, or `posduif_sync_<database>`.
    ///
    /// A slot's name is unique in the cluster and knows only `a-z 0-9 _`; a database name that does not fit
    /// is rewritten and marked with its hash, so that `a-b` and `a_b` stay apart.
    pub fn slot_name(&self, database: &str) -> String {
        if !self.slot_name.is_empty() {
            return self.slot_name.clone();
        }
        let plain = format!("posduif_sync_{database}");
        if is_slot_name(&plain) {
            return plain;
        }
        let hash: String =
            Sha256::digest(database).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let rewritten = plain.chars().map(|c| match c.to_ascii_lowercase() {
            c if is_slot_character(c) => c,
            _ => '_',
        });
        let stem: String = rewritten.take(NAME_BYTES - 1 - hash.len()).collect();
        format!("{stem}_{hash}")
    }

    pub(super) fn check_number(&self, tenants: usize, problems: &mut Problems) {
        if !self.slot_name.is_empty() && tenants > 1 {
            problems.add(
                "sync.wal.slot_name",
                "every tenant needs a slot of its own; leave it empty where there are several tenants",
            );
        }
    }

    pub(super) fn check(&self, problems: &mut Problems) {
        if !self.slot_name.is_empty() && !is_slot_name(&self.slot_name) {
            problems.add("sync.wal.slot_name", "a slot's name has 1 to 63 characters from a-z 0-9 _");
        }
        if !(1..=NAME_BYTES).contains(&self.publication.len()) || self.publication.contains('\0') {
            problems.add("sync.wal.publication", "a publication's name has 1 to 63 bytes");
        }
        problems.range("sync.wal.batch_size", self.batch_size, 1..=10_000);
        problems.range("sync.wal.read_interval", self.read_interval, milliseconds(10, 60_000));
        // Above that a snapshot would wait for the next poll longer than it waits for anything.
        problems.range("sync.wal.cold_interval", self.cold_interval, milliseconds(10, 8_000));
        problems.range("sync.wal.heartbeat_interval", self.heartbeat_interval, milliseconds(100, 300_000));
        problems.range("sync.wal.confirm_delay", self.confirm_delay, milliseconds(0, 600_000));
        problems.range("sync.wal.status_interval", self.status_interval, milliseconds(100, 20_000));
        problems.range("sync.wal.chunk_bytes", self.chunk_bytes, 4096..=16 << 20);
        problems.range("sync.wal.transaction_cap_bytes", self.transaction_cap_bytes, 64 << 10..=1 << 30);
    }
}

fn milliseconds(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(from)..=Duration::from_millis(to)
}

fn is_slot_character(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9' | '_')
}

fn is_slot_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len()) && name.chars().all(is_slot_character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_is_named_after_the_database() {
        assert_eq!(WalConfig::default().slot_name("tenant_1"), "posduif_sync_tenant_1");
        let named = WalConfig { slot_name: "mine".to_owned(), ..WalConfig::default() };
        assert_eq!(named.slot_name("tenant_1"), "mine");
    }

    #[test]
    fn databases_whose_names_do_not_fit_still_get_different_valid_slots() {
        let wal = WalConfig::default();
        let databases = ["a-b", "a_b", "A_b", "ä_b", &"x".repeat(60), &"x".repeat(61)];
        let slots: std::collections::BTreeSet<_> = databases.iter().map(|d| wal.slot_name(d)).collect();
        assert_eq!(slots.len(), databases.len());
        assert!(slots.iter().all(|slot| is_slot_name(slot)), "{slots:?}");
    }

    #[test]
    fn several_tenants_cannot_share_one_slot() {
        let named = WalConfig { slot_name: "mine".to_owned(), ..WalConfig::default() };
        let refused = |wal: &WalConfig, tenants| {
            let mut problems = Problems::default();
            wal.check(&mut problems);
            wal.check_number(tenants, &mut problems);
            problems.into_result().is_err()
        };
        assert!(!refused(&named, 1) && refused(&named, 2) && !refused(&WalConfig::default(), 2));
        assert!(refused(&WalConfig { slot_name: "Mine".to_owned(), ..WalConfig::default() }, 1));
    }
}
