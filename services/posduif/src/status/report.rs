//! What `posduif status --json` prints; docs/STATUS.md promises its keys.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Report {
    /// No tenant has a problem.
    pub ok: bool,
    pub tenants: Vec<TenantReport>,
    /// Slots named as ours that belong to no configured tenant: each keeps WAL.
    pub orphan_slots: Vec<OrphanSlot>,
}

#[derive(Debug, Serialize)]
pub struct TenantReport {
    pub tenant: String,
    pub ok: bool,
    /// `ok`, or the first problem.
    pub verdict: String,
    pub problems: Vec<Note>,
    pub warnings: Vec<Note>,
    /// The ingester that works for it.
    pub ingester: Option<String>,
    /// How late devices get changes, by PostgreSQL's clock.
    pub lag_seconds: Option<f64>,
    /// WAL that is flushed and not published.
    pub lag_bytes: Option<u64>,
    pub database: Option<DatabaseFacts>,
    pub log: Option<LogFacts>,
}

/// Something to act on: a stable word, and a sentence that says what to do.
#[derive(Debug, Serialize)]
pub struct Note {
    pub code: &'static str,
    pub message: String,
}

#[derive(Debug, Default, Serialize)]
pub struct DatabaseFacts {
    pub version: String,
    pub in_recovery: bool,
    /// Which cluster it is, and on which timeline: another one after each promotion and recovery.
    pub system: String,
    pub timeline: i64,
    pub wal_end: String,
    pub migrated: bool,
    pub publication: bool,
    /// What an operator said of the tenant last; absent in a database of an earlier version.
    pub standing: Option<Standing>,
    pub slot: Option<SlotFacts>,
    /// Names of physical slots for whose standbys logical decoding waits.
    pub synchronized_standby_slots: Vec<String>,
    pub standbys: Vec<StandbyFacts>,
    pub epoch: Option<EpochFacts>,
    /// The newest epochs, newest first.
    pub epoch_history: Vec<PastEpoch>,
    /// How old the newest heartbeat row is that PostgreSQL has.
    pub heartbeat_age_seconds: Option<f64>,
    /// How old the newest heartbeat is that readers may see.
    #[serde(skip)]
    pub published_age_seconds: Option<f64>,
    pub devices: Option<Devices>,
}

#[derive(Debug, Serialize)]
pub struct Standing {
    pub paused_at: Option<String>,
    pub dropped_at: Option<String>,
    pub changed_by: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct SlotFacts {
    pub name: String,
    pub database: Option<String>,
    pub plugin: Option<String>,
    pub active: bool,
    pub wal_status: Option<String>,
    pub invalidation_reason: Option<String>,
    pub failover: bool,
    /// It came from a primary; only of a standby's own slots this means something.
    pub synced: bool,
    /// A standby's copy that is not usable yet.
    pub temporary: bool,
    pub confirmed: Option<String>,
    pub retained_bytes: Option<i64>,
    pub safe_wal_bytes: Option<i64>,
    pub wal_limit_bytes: Option<i64>,
}

/// A physical slot: the place that the primary keeps for a standby.
#[derive(Debug, Serialize)]
pub struct StandbyFacts {
    pub slot: String,
    pub active: bool,
    /// WAL that the standby has not confirmed.
    pub behind_bytes: Option<i64>,
    /// Nothing is decoded that it lacks.
    pub waited_for: bool,
}

#[derive(Debug, Serialize)]
pub struct EpochFacts {
    pub epoch: String,
    pub reason: String,
    pub opened_at: String,
    pub age_seconds: f64,
}

#[derive(Debug, Serialize)]
pub struct PastEpoch {
    pub epoch: String,
    pub reason: String,
    pub detail: String,
    pub opened_at: String,
}

#[derive(Debug, Serialize)]
pub struct Devices {
    pub enrolled: i64,
    pub revoked: i64,
    pub seen_last_day: i64,
}

#[derive(Debug, Default, Serialize)]
pub struct LogFacts {
    pub epoch: String,
    /// `wal` or `polling`: what the log is fed from.
    pub source: &'static str,
    pub watermark: String,
    pub watermark_end: String,
    pub floor: String,
    pub compacted: String,
    pub commits: u64,
    pub retained_bytes: u64,
    pub shared_entries: u64,
    pub snapshots_under_way: usize,
    pub snapshots_wait: bool,
    pub broken: Option<String>,
    pub system: String,
    pub timeline: u32,
}

#[derive(Debug, Serialize)]
pub struct OrphanSlot {
    /// The system identifier of the PostgreSQL cluster.
    pub cluster: String,
    pub slot: String,
    pub database: Option<String>,
    pub active: bool,
    pub retained_bytes: Option<i64>,
    /// Why it is listed: `not_configured`, or `dropped`, the tenant that it was made for.
    pub reason: &'static str,
    /// What removes it; absent where somebody follows it.
    pub command: Option<String>,
}
