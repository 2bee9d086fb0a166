//! How far a tenant's webhook was told in, the same out to whichever ingester goes on; and whom a large commit touched.

use std::collections::HashMap;

use posduif_model::{Bucket, Epoch, Lsn};

use crate::{error::LogError, reader::LogReader, script, state::LogState};

/// Everything up to and including this commit was told, or concerned nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub epoch: Epoch,
    pub commit: Lsn,
}

impl Delivered {
    fn stored(&self) -> String {
        format!("{} {}", self.epoch, self.commit.get())
    }

    /// `None` for what another version wrote: the receiver is told that something was skipped.
    fn parse(text: &str) -> Option<Self> {
        let (epoch, commit) = text.split_once(' ')?;
        Some(Delivered { epoch: epoch.parse().ok()?, commit: Lsn::new(commit.parse().ok()?) })
    }
}

/// A part of the buckets that a commit touched which names them elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Page {
        /// Some may come again in a later page (SSCAN).
        buckets: Vec<Bucket>,
        /// Where to go on; `None` where these were the last.
        next: Option<u64>,
    },
    /// They were trimmed, or another epoch began.
    Expired,
    /// Redis fell back behind the commit and is being refilled.
    Moved,
}

/// Buckets that one page has, about.
const PAGE: usize = 1_000;

impl LogReader {
    /// The state of the log and how far the webhook was told, in one round trip.
    pub async fn delivered(&self) -> Result<(Option<LogState>, Option<Delivered>), LogError> {
        let mut pipeline = redis::pipe();
        pipeline.hgetall(self.keys.state()).get(self.keys.webhook());
        let (fields, told): (HashMap<String, String>, Option<String>) =
            pipeline.query_async(&mut self.pool.get().await?).await?;
        Ok((LogState::from_fields(&fields)?, told.as_deref().and_then(Delivered::parse)))
    }

    /// Notes how far the webhook was told, under the token with which the tenant was taken over.
    ///
    /// # Errors
    /// `Fenced` when another ingester took the tenant over since; `Diverged` when Redis lost the token.
    pub async fn keep_delivered(&self, token: i64, told: Delivered) -> Result<(), LogError> {
        let script = script::deliver();
        let mut call = script.key(self.keys.token());
        call.key(self.keys.webhook()).arg(token).arg(told.stored());
        Ok(call.invoke_async(&mut self.pool.get().await?).await?)
    }

    /// Some of the buckets of a commit that has them elsewhere; the first page is at 0.
    pub async fn touched_page(&self, epoch: &Epoch, commit: Lsn, page: u64) -> Result<Part, LogError> {
        let mut pipeline = redis::pipe();
        let key = self.keys.touched(epoch, commit);
        // The state last: where the set goes in between, or is not there yet, it says so.
        pipeline.cmd("SSCAN").arg((key, page, "COUNT", PAGE)).hgetall(self.keys.state());
        let ((next, names), fields): ((u64, Vec<String>), HashMap<String, String>) =
            pipeline.query_async(&mut self.pool.get().await?).await?;
        match LogState::from_fields(&fields)? {
            Some(state) if state.epoch == *epoch && state.floor < commit => {
                if state.watermark.commit < commit {
                    return Ok(Part::Moved);
                }
            }
            _ => return Ok(Part::Expired),
        }
        let corrupt = |_| LogError::Corrupt(format!("buckets of commit {commit}"));
        let buckets = names.iter().map(|name| name.parse().map_err(corrupt));
        Ok(Part::Page { buckets: buckets.collect::<Result<_, _>>()?, next: Some(next).filter(|n| *n != 0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written_and_anything_else_is_none() {
        let told = Delivered { epoch: Epoch::from_random(7), commit: Lsn::new(u64::MAX) };
        assert_eq!(Delivered::parse(&told.stored()), Some(told));
        for text in ["", "x 9", "7", "0123 "] {
            assert_eq!(Delivered::parse(text), None, "{text:?}");
        }
    }
}
