//! What every reader asks first: which epoch, up to where, and since where.

use std::collections::HashMap;

use posduif_model::{Epoch, Lsn, Source, TenantId, rule::RulesHash};
use redis::AsyncCommands;

use crate::{connect::Connection, error::LogError, key::Keys};

/// The field that holds the watermark's commit.
pub(crate) const COMMIT: &str = "commit";

/// The newest commit that readers may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watermark {
    /// Readers see every change of this commit and of those before it.
    pub commit: Lsn,
    /// The WAL up to here holds nothing more for the log; at least the end of `commit`.
    pub end: Lsn,
}

/// The newest heartbeat row that the log has; PostgreSQL lacks it after its disk was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub sequence: i64,
    pub nonce: i64,
}

/// What a log is fed from, and how far that is known to whoever goes on from another source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    pub source: Source,
    /// A snapshot of PostgreSQL (`pg_snapshot` as text, manual 9.27.10): the watermark covers everything that it shows.
    pub seen: Option<String>,
    /// What the last poll before a slot has published, so that the WAL's commits below this position that the snapshot
    /// shows are passed over.
    pub polled: Option<(Lsn, String)>,
}

impl Supply {
    /// Fields to set, with an empty value to remove.
    pub(crate) fn to_fields(&self) -> [(&'static str, String); 3] {
        let polled = self.polled.as_ref().map(|(below, snapshot)| format!("{} {snapshot}", below.get()));
        [
            ("source", self.source.to_string()),
            ("seen", self.seen.clone().unwrap_or_default()),
            ("polled", polled.unwrap_or_default()),
        ]
    }

    fn from_fields(fields: &HashMap<String, String>) -> Option<Self> {
        let text = |name: &str| fields.get(name).filter(|text| !text.is_empty());
        let polled = |text: &String| {
            let (below, snapshot) = text.split_once(' ')?;
            Some((Lsn::new(below.parse().ok()?), snapshot.to_owned()))
        };
        Some(Supply {
            source: match text("source") {
                Some(word) => word.parse().ok()?,
                None => Source::Wal,
            },
            seen: text("seen").cloned(),
            polled: match text("polled") {
                Some(text) => Some(polled(text)?),
                None => None,
            },
        })
    }
}

/// The state hash of a tenant's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    pub epoch: Epoch,
    /// The watermark with which the epoch began: the predecessor of its first commit.
    pub base: Lsn,
    pub watermark: Watermark,
    /// No change at or below this commit can be read any more.
    pub floor: Lsn,
    /// Older versions of shared rows up to this commit may be gone: a reader that stops before it would hold a state
    /// that PostgreSQL never had.
    pub compacted: Lsn,
    /// The highest commit of which any entry was ever stored, even if only a part of it.
    pub top: Lsn,
    /// Why this log must not be continued, if a writer found a reason.
    pub broken: Option<String>,
    pub rules: RulesHash,
    /// What publication and tables were when the epoch began; a change of them shows in no message of the WAL.
    pub tables: String,
    /// Snapshots wait until every transaction with an id below this has ended; absent once they have.
    pub unready_below: Option<u64>,
    pub heartbeat: Option<Heartbeat>,
    /// System identifier and timeline of the server that the log was read from.
    pub system: String,
    pub timeline: u32,
    pub supply: Supply,
}

impl LogState {
    /// The state of a tenant's log, `None` where there is no log.
    pub async fn read(connection: &mut Connection, tenant: &TenantId) -> Result<Option<Self>, LogError> {
        let fields: HashMap<String, String> = connection.hgetall(Keys::new(tenant).state()).await?;
        Self::from_fields(&fields)
    }

    pub(crate) fn to_fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("epoch", self.epoch.to_string()),
            ("base", self.base.get().to_string()),
            (COMMIT, self.watermark.commit.get().to_string()),
            ("end", self.watermark.end.get().to_string()),
            ("floor", self.floor.get().to_string()),
            ("compacted", self.compacted.get().to_string()),
            ("top", self.top.get().to_string()),
            ("rules", self.rules.to_string()),
            ("tables", self.tables.clone()),
            ("system", self.system.clone()),
            ("timeline", self.timeline.to_string()),
        ];
        if let Some(xid) = self.unready_below {
            fields.push(("unready_below", xid.to_string()));
        }
        if let Some(heartbeat) = self.heartbeat {
            fields.push(("heartbeat", format!("{} {}", heartbeat.sequence, heartbeat.nonce)));
        }
        fields.extend(self.supply.to_fields());
        fields
    }

    /// `None` where the hash does not exist: there is no log.
    pub(crate) fn from_fields(fields: &HashMap<String, String>) -> Result<Option<Self>, LogError> {
        if fields.is_empty() {
            return Ok(None);
        }
        Self::try_from_fields(fields).map(Some).ok_or_else(|| LogError::Corrupt("state".to_owned()))
    }

    fn try_from_fields(fields: &HashMap<String, String>) -> Option<Self> {
        let lsn = |name: &str| fields.get(name)?.parse().ok().map(Lsn::new);
        let heartbeat = |text: &String| {
            let (sequence, nonce) = text.split_once(' ')?;
            Some(Heartbeat { sequence: sequence.parse().ok()?, nonce: nonce.parse().ok()? })
        };
        Some(LogState {
            epoch: fields.get("epoch")?.parse().ok()?,
            base: lsn("base")?,
            watermark: Watermark { commit: lsn("commit")?, end: lsn("end")? },
            floor: lsn("floor")?,
            compacted: lsn("compacted")?,
            top: lsn("top")?,
            broken: fields.get("broken").cloned(),
            rules: RulesHash::from_stored(fields.get("rules")?),
            tables: fields.get("tables")?.clone(),
            unready_below: match fields.get("unready_below") {
                Some(xid) => Some(xid.parse().ok()?),
                None => None,
            },
            heartbeat: match fields.get("heartbeat") {
                Some(text) => Some(heartbeat(text)?),
                None => None,
            },
            system: fields.get("system")?.clone(),
            timeline: fields.get("timeline")?.parse().ok()?,
            supply: Supply::from_fields(fields)?,
        })
    }
}
