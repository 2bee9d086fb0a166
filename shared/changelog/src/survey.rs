//! The log of one tenant in, how much of it there is out; for operators, changes nothing.

use posduif_model::Epoch;

use crate::{durability, error::LogError, reader::LogReader, record::CommitRecord};

/// How much there is of an epoch's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The commits that the log begins and ends with.
    pub oldest: Option<CommitRecord>,
    pub newest: Option<CommitRecord>,
    pub commits: u64,
    /// Entries of the bucket that everyone reads.
    pub shared_entries: u64,
    /// Snapshots under way, which hold the floor.
    pub leases: usize,
}

type StoredEntry = (String, Vec<(String, Vec<u8>)>);
type Answers = (Vec<StoredEntry>, Vec<StoredEntry>, u64, u64, Vec<(String, u64)>, (u64, u64));

impl Survey {
    /// Payload bytes between the oldest and the newest commit.
    pub fn bytes(&self) -> u64 {
        let written = |record: &Option<CommitRecord>| record.as_ref().map_or(0, |record| record.written);
        written(&self.newest).saturating_sub(written(&self.oldest))
    }
}

impl LogReader {
    /// Looks at both ends of the log; no key is searched for and no script is called.
    pub async fn survey(&self, epoch: &Epoch) -> Result<Survey, LogError> {
        let commits = self.keys.commits(epoch);
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("XRANGE")
            .arg((&commits, "-", "+", "COUNT", 1))
            .cmd("XREVRANGE")
            .arg((&commits, "+", "-", "COUNT", 1))
            .cmd("XLEN")
            .arg(&commits)
            .cmd("XLEN")
            .arg(self.keys.bucket(epoch, &posduif_model::Bucket::Shared))
            .cmd("ZRANGE")
            .arg((self.keys.leases(), 0, -1, "WITHSCORES"))
            .cmd("TIME");
        let (oldest, newest, commits, shared_entries, leases, (now, _)): Answers =
            pipeline.query_async(&mut self.pool.get().await?).await?;
        let record = |found: Vec<StoredEntry>| {
            found.first().map(|(id, fields)| CommitRecord::parse(id, fields)).transpose()
        };
        let of_epoch = format!("{epoch} ");
        let held = leases.iter().filter(|(lease, until)| lease.starts_with(&of_epoch) && *until > now);
        let leases = held.count();
        Ok(Survey { oldest: record(oldest)?, newest: record(newest)?, commits, shared_entries, leases })
    }

    /// Sentences about Redis's settings that put the log at risk.
    pub async fn concerns(&self) -> Result<Vec<String>, LogError> {
        durability::concerns(&mut *self.pool.get().await?).await
    }
}
