//! A new floor in, a log without what lies below it out.

use posduif_model::{Bucket, Epoch, Lsn};

use crate::{error::LogError, record::CommitRecord, writer::LogWriter};

/// Commits looked at in one step; a script call names their buckets.
const STEP: usize = 500;
/// Buckets trimmed by one script call: Redis does nothing else meanwhile.
const MOST_KEYS: usize = 1_000;

impl LogWriter {
    /// Raises the floor to a commit of the log and removes every change at or below it; returns how many entries went.
    ///
    /// The commit log names the buckets, so no key is searched for. It goes last: cut short, the next trim finds the same
    /// commits again.
    ///
    /// # Errors
    /// `Diverged` when `floor` lies above the watermark.
    pub async fn trim(&mut self, epoch: &Epoch, floor: Lsn) -> Result<u64, LogError> {
        let (mut after, mut removed) = (Lsn::ZERO, 0);
        loop {
            let records = self.commits(epoch, after, floor, STEP).await?;
            let Some(last) = records.last() else {
                return Ok(removed);
            };
            after = last.commit;
            removed += self.trim_step(epoch, after, &records).await?;
        }
    }

    async fn trim_step(
        &mut self,
        epoch: &Epoch,
        floor: Lsn,
        records: &[CommitRecord],
    ) -> Result<u64, LogError> {
        let mut removed = 0;
        let mut sets = Vec::new();
        for record in records.iter().filter(|record| record.buckets_elsewhere) {
            let set = self.keys.touched(epoch, record.commit);
            removed += self.trim_set(epoch, floor, &set).await?;
            sets.push(set);
        }
        let mut buckets: Vec<Bucket> = records.iter().flat_map(|record| record.buckets.clone()).collect();
        buckets.sort_unstable();
        buckets.dedup();
        for some in buckets.chunks(MOST_KEYS) {
            let keys: Vec<String> = some.iter().map(|bucket| self.keys.bucket(epoch, bucket)).collect();
            removed += self.trim_keys(epoch, floor, &keys, &[], false).await?;
        }
        for some in sets.chunks(MOST_KEYS) {
            self.trim_keys(epoch, floor, &[], some, false).await?;
        }
        self.trim_keys(epoch, floor, &[], &[], true).await?;
        Ok(removed)
    }

    /// Trims the buckets that a set names, however many they are.
    async fn trim_set(&mut self, epoch: &Epoch, floor: Lsn, set: &str) -> Result<u64, LogError> {
        let (mut cursor, mut removed) = (0_u64, 0);
        loop {
            let (next, members): (u64, Vec<String>) = redis::cmd("SSCAN")
                .arg((set, cursor, "COUNT", MOST_KEYS))
                .query_async(&mut self.connection)
                .await?;
            let keys = members.iter().map(|name| {
                let bucket: Bucket = name.parse().map_err(|_| LogError::Corrupt(format!("set {set}")))?;
                Ok(self.keys.bucket(epoch, &bucket))
            });
            let keys = keys.collect::<Result<Vec<String>, LogError>>()?;
            removed += self.trim_keys(epoch, floor, &keys, &[], false).await?;
            if next == 0 {
                return Ok(removed);
            }
            cursor = next;
        }
    }

    async fn trim_keys(
        &mut self,
        epoch: &Epoch,
        floor: Lsn,
        buckets: &[String],
        sets: &[String],
        commits: bool,
    ) -> Result<u64, LogError> {
        let mut call = self.scripts.trim.key(self.keys.token());
        call.key(self.keys.state()).key(self.keys.commits(epoch));
        for key in buckets.iter().chain(sets) {
            call.key(key);
        }
        call.arg(self.token).arg(epoch.to_string()).arg(floor.get()).arg(buckets.len());
        call.arg(if commits { "commits" } else { "" });
        Ok(call.invoke_async(&mut self.connection).await?)
    }
}
