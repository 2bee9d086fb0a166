//! The commit log: one entry per transaction, written after all its rows are stored.

use posduif_model::{Bucket, DeviceId, Lsn};

use crate::error::LogError;

/// Above this many buckets the commit entry points to a set instead of naming them.
pub const MOST_BUCKETS_INLINE: usize = 1_000;

/// What the commit log says of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRecord {
    /// Final LSN from the body of Begin; with ordinal 0 the entry's id.
    pub commit: Lsn,
    /// The LSN after the commit record: what is confirmed to PostgreSQL.
    pub end: Lsn,
    /// The commit before this one; a reader that follows the chain sees a gap.
    pub previous: Lsn,
    /// 32-bit id of the top-level transaction, as pgoutput sends it.
    pub xid: u32,
    /// Raw row messages in the transaction.
    pub changes: u64,
    /// Commit time in microseconds since 2000-01-01 00:00 UTC, PostgreSQL's own scale.
    pub committed_at: i64,
    /// The device whose upload this was.
    pub origin: Option<DeviceId>,
    /// The buckets that got entries; empty with `buckets_elsewhere` when there are too many to name.
    pub buckets: Vec<Bucket>,
    pub buckets_elsewhere: bool,
    /// Payload bytes of everything stored in this epoch up to and including this transaction: the difference of
    /// two commits is what lies between them.
    pub written: u64,
    /// The transaction was larger than the log takes: its rows are not stored, whoever is below takes a snapshot.
    pub left_out: bool,
    /// Of a poll: the snapshot that it has published, see [`crate::Supply`].
    pub seen: Option<String>,
}

impl CommitRecord {
    pub(crate) fn fields(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut fields = vec![
            ("previous", self.previous.get().to_string()),
            ("end", self.end.get().to_string()),
            ("xid", self.xid.to_string()),
            ("changes", self.changes.to_string()),
            ("at", self.committed_at.to_string()),
            ("written", self.written.to_string()),
        ];
        if self.left_out {
            fields.push(("left_out", "1".to_owned()));
        }
        if let Some(seen) = &self.seen {
            fields.push(("seen", seen.clone()));
        }
        if let Some(device) = &self.origin {
            fields.push(("origin", device.to_string()));
        }
        let buckets = match self.buckets_elsewhere {
            true => "set".to_owned(),
            false => self.buckets.iter().map(Bucket::to_string).collect::<Vec<_>>().join(" "),
        };
        fields.push(("buckets", buckets));
        fields.into_iter().map(|(name, value)| (name, value.into_bytes())).collect()
    }

    pub(crate) fn parse(id: &str, fields: &[(String, Vec<u8>)]) -> Result<Self, LogError> {
        Self::try_parse(id, fields).ok_or_else(|| LogError::Corrupt(format!("commit {id}")))
    }

    fn try_parse(id: &str, fields: &[(String, Vec<u8>)]) -> Option<Self> {
        let text = |name: &str| {
            let (_, value) = fields.iter().find(|(field, _)| field == name)?;
            std::str::from_utf8(value).ok()
        };
        let lsn = |name: &str| text(name)?.parse().ok().map(Lsn::new);
        let position: posduif_model::Position = id.parse().ok()?;
        let named = text("buckets")?;
        let buckets_elsewhere = named == "set";
        Some(CommitRecord {
            commit: position.commit,
            end: lsn("end")?,
            previous: lsn("previous")?,
            xid: text("xid")?.parse().ok()?,
            changes: text("changes")?.parse().ok()?,
            committed_at: text("at")?.parse().ok()?,
            origin: match text("origin") {
                Some(device) => Some(device.parse().ok()?),
                None => None,
            },
            buckets: match buckets_elsewhere {
                true => Vec::new(),
                false => named.split_whitespace().map(|b| b.parse().ok()).collect::<Option<_>>()?,
            },
            buckets_elsewhere,
            written: text("written")?.parse().ok()?,
            left_out: text("left_out").is_some(),
            seen: text("seen").map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_entries_round_trip() {
        let mut record = CommitRecord {
            commit: Lsn::new(u64::MAX),
            end: Lsn::new(8),
            previous: Lsn::new(3),
            xid: u32::MAX,
            changes: 2,
            committed_at: -5,
            origin: Some("phone".parse().unwrap()),
            buckets: vec![Bucket::Shared, "user:00000000-0000-0000-0000-000000000001".parse().unwrap()],
            buckets_elsewhere: false,
            written: u64::MAX,
            left_out: false,
            seen: Some("1:2:".to_owned()),
        };
        for _ in 0..2 {
            let fields: Vec<_> = record.fields().into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
            let id = format!("{}-0", record.commit.get());
            assert_eq!(CommitRecord::parse(&id, &fields).unwrap(), record);
            record = CommitRecord {
                origin: None,
                buckets: vec![],
                buckets_elsewhere: true,
                left_out: true,
                seen: None,
                ..record
            };
        }
    }
}
