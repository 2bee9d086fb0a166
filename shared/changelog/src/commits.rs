//! A stretch of the log in, the commits of it with the buckets that they touched out.

use std::collections::HashMap;

use posduif_model::{Bucket, Epoch, Lsn, Position};

use crate::{error::LogError, reader::LogReader, record::CommitRecord, state::LogState};

/// How a read of the commit log ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commits {
    /// In their order; fewer than were asked for where these are all.
    Read(Vec<CommitRecord>),
    /// The log was trimmed past the reader, or another epoch began.
    Expired,
    /// Redis fell back behind `upto` and is being refilled; the reader looks at the state again.
    Moved,
}

type StoredEntry = (String, Vec<(String, Vec<u8>)>);

impl LogReader {
    /// The commits after `after` up to `upto`, at most `limit`, with the word of the state that they are all there.
    pub async fn commits(
        &self,
        epoch: &Epoch,
        after: Lsn,
        upto: Lsn,
        limit: usize,
    ) -> Result<Commits, LogError> {
        let (first, last) = (format!("({}", Position::last_of(after)), Position::last_of(upto).to_string());
        let mut pipeline = redis::pipe();
        // The state last, so that it shows whatever trims, replaces or loses what was read. No MULTI, which a Redis that is
        // full refuses.
        pipeline.cmd("XRANGE").arg((self.keys.commits(epoch), first, last, "COUNT", limit));
        pipeline.hgetall(self.keys.state());
        let (found, fields): (Vec<StoredEntry>, HashMap<String, String>) =
            pipeline.query_async(&mut self.pool.get().await?).await?;
        match LogState::from_fields(&fields)? {
            Some(state) if state.epoch == *epoch && state.floor <= after => {
                if state.watermark.commit < upto {
                    return Ok(Commits::Moved);
                }
            }
            _ => return Ok(Commits::Expired),
        }
        let commits = found.iter().map(|(id, fields)| CommitRecord::parse(id, fields));
        Ok(Commits::Read(commits.collect::<Result<_, _>>()?))
    }

    /// Which of these buckets a commit touched that has its buckets elsewhere; all, where that is gone.
    pub async fn touched(
        &self,
        epoch: &Epoch,
        commit: Lsn,
        buckets: &[Bucket],
    ) -> Result<Vec<bool>, LogError> {
        if buckets.is_empty() {
            return Ok(Vec::new());
        }
        let key = self.keys.touched(epoch, commit);
        let names: Vec<String> = buckets.iter().map(Bucket::to_string).collect();
        let mut pipeline = redis::pipe();
        // The size last: where the set goes in between, it says so.
        pipeline.cmd("SMISMEMBER").arg(&key).arg(names).cmd("SCARD").arg(&key);
        let (members, size): (Vec<bool>, u64) = pipeline.query_async(&mut self.pool.get().await?).await?;
        Ok(if size == 0 { vec![true; buckets.len()] } else { members })
    }
}
