//! An API replica's side of the log: which commits may be seen, and the changes of some buckets.

use std::collections::HashMap;

use posduif_model::{Bucket, Epoch, Lsn, Position, TenantId};
use redis::AsyncCommands;

use crate::{
    connect::RedisPool,
    entry::{self, Entry},
    error::LogError,
    key::Keys,
    page::{BucketRead, Merged, PAGE_BYTES, Page, merge},
    state::{COMMIT, LogState},
};

type StoredEntry = (String, Vec<(String, Vec<u8>)>);

/// Reads the log of one tenant.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(crate) pool: RedisPool,
    pub(crate) keys: Keys,
}

/// How a read ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    Page(Page),
    /// The log was trimmed past the reader, or another epoch began; the reader needs a snapshot.
    Expired,
    /// The state moved on or back between two looks: Redis lost a tail that the ingester will write again, or a
    /// compaction went past where the reader wanted to stop. The reader looks at the state again.
    Moved,
}

/// Entries of a bucket that are asked for while nothing is known of their size: each may have megabytes.
const FIRST_ENTRIES: usize = 16;

/// How many entries of each bucket a page has room for, if they are as large as these; 0 where these are all.
fn fitting(reads: &[BucketRead], limit: usize) -> usize {
    if !reads.iter().any(|read| read.cut) {
        return 0;
    }
    let entries = || reads.iter().flat_map(|read| &read.entries);
    let average = entries().map(Entry::bytes).sum::<usize>() / entries().count().max(1);
    (PAGE_BYTES / average.max(1) + 1).min(limit)
}

impl LogReader {
    pub fn new(pool: RedisPool, tenant: &TenantId) -> Self {
        LogReader { pool, keys: Keys::new(tenant) }
    }

    /// The state of the log in one round trip, `None` where there is no log (yet).
    pub async fn state(&self) -> Result<Option<LogState>, LogError> {
        let fields: HashMap<String, String> = self.pool.get().await?.hgetall(self.keys.state()).await?;
        LogState::from_fields(&fields)
    }

    /// The changes of `buckets` after the commit `after` and up to `upto`, about `limit` of them, whole
    /// transactions only.
    ///
    /// A page that may have more entries than a first look at a few is read in a second one, which is all that counts.
    /// The state is read after the streams, so no trim, new epoch or fail-over of Redis goes unnoticed.
    pub async fn read(
        &self,
        epoch: &Epoch,
        buckets: &[Bucket],
        after: Lsn,
        upto: Lsn,
        limit: usize,
    ) -> Result<Read, LogError> {
        let mut count = limit.clamp(1, FIRST_ENTRIES);
        let (mut state, mut reads) = self.reads(epoch, buckets, after, upto, count).await?;
        let more = fitting(&reads, limit);
        if more > count {
            count = more;
            (state, reads) = self.reads(epoch, buckets, after, upto, count).await?;
        }
        let mut merged = merge(reads, upto, count);
        if let Merged::Incomplete(commit) = merged {
            // Whole, however large: the ingester caps what a transaction may be.
            (state, reads) = self.reads(epoch, buckets, after, commit, usize::MAX).await?;
            merged = merge(reads, commit, usize::MAX);
        }
        match (state, merged) {
            (None, _) => Ok(Read::Expired),
            (Some(state), _) if state.epoch != *epoch || state.floor > after => Ok(Read::Expired),
            (Some(state), _) if state.watermark.commit < upto => Ok(Read::Moved),
            // Only the bucket that everyone reads is compacted.
            (Some(state), _) if state.compacted > upto && buckets.contains(&Bucket::Shared) => {
                Ok(Read::Moved)
            }
            (_, Merged::Page(page)) => Ok(Read::Page(page)),
            (_, Merged::Incomplete(commit)) => {
                Err(LogError::Corrupt(format!("unbounded read cut at {commit}")))
            }
        }
    }

    /// One round trip. The state comes last: whatever trims, compacts or replaces what was read shows in it. The lower of the
    /// watermarks before and after counts: a tail that Redis has lost may be written again between two commands. No MULTI, in
    /// which a Redis that is full refuses to read, too.
    async fn reads(
        &self,
        epoch: &Epoch,
        buckets: &[Bucket],
        after: Lsn,
        upto: Lsn,
        limit: usize,
    ) -> Result<(Option<LogState>, Vec<BucketRead>), LogError> {
        let first = format!("({}", Position::last_of(after));
        let last = Position::last_of(upto).to_string();
        let mut pipeline = redis::pipe();
        pipeline.hget(self.keys.state(), COMMIT);
        for bucket in buckets {
            let command = pipeline.cmd("XRANGE").arg((self.keys.bucket(epoch, bucket), &first, &last));
            if limit < usize::MAX {
                command.arg(("COUNT", limit + 1));
            }
        }
        pipeline.hgetall(self.keys.state());
        let (before, mut answers) = {
            let answers: Vec<redis::Value> = pipeline.query_async(&mut self.pool.get().await?).await?;
            let mut answers = answers.into_iter();
            (answers.next(), answers.collect::<Vec<_>>())
        };
        let unreadable = || LogError::Corrupt("answer to a read".to_owned());
        let before: Option<u64> =
            redis::from_redis_value(before.ok_or_else(unreadable)?).map_err(|_| unreadable())?;
        let fields = redis::from_redis_value(answers.pop().ok_or_else(unreadable)?);
        let fields = fields.map_err(|_| unreadable())?;
        let reads = answers
            .into_iter()
            .map(|answer| {
                let found: Vec<StoredEntry> = redis::from_redis_value(answer).map_err(|_| unreadable())?;
                let entries: Result<Vec<Entry>, LogError> =
                    found.iter().map(|(id, fields)| entry::decode(id, fields)).collect();
                Ok(BucketRead { cut: found.len() > limit, entries: entries? })
            })
            .collect::<Result<Vec<_>, LogError>>()?;
        let mut state = LogState::from_fields(&fields)?;
        if let Some(state) = &mut state {
            state.watermark.commit = state.watermark.commit.min(Lsn::new(before.unwrap_or_default()));
        }
        Ok((state, reads))
    }
}
