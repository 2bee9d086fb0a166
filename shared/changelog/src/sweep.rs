//! Epochs that were replaced in, their memory back out.

use std::collections::HashMap;

use posduif_model::Epoch;

use crate::{error::LogError, writer::LogWriter};

/// Keys that one step looks at.
const STEP: usize = 1_000;

impl LogWriter {
    /// Epochs that were replaced at least `grace` seconds ago, by Redis's own clock.
    pub async fn retired(&mut self, grace: u64) -> Result<Vec<Epoch>, LogError> {
        let retired: HashMap<String, u64> =
            redis::cmd("HGETALL").arg(self.keys.retired()).query_async(&mut self.connection).await?;
        let (now, _): (u64, u64) = redis::cmd("TIME").query_async(&mut self.connection).await?;
        let old = retired.into_iter().filter(|(_, since)| since.saturating_add(grace) <= now);
        old.map(|(epoch, _)| epoch.parse().map_err(|_| LogError::Corrupt("retired epochs".to_owned())))
            .collect()
    }

    /// Removes some keys of a retired epoch; returns where to go on, or `None` when all are gone.
    ///
    /// The keys are searched for: a transaction that was never finished is named by no commit. Epochs are rare.
    pub async fn sweep(&mut self, epoch: &Epoch, cursor: u64) -> Result<Option<u64>, LogError> {
        let pattern = format!("{}*", self.keys.epoch(epoch));
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg((cursor, "MATCH", pattern, "COUNT", STEP))
            .query_async(&mut self.connection)
            .await?;
        let mut call = self.scripts.sweep.key(self.keys.token());
        call.key(self.keys.state()).key(self.keys.retired());
        for key in keys {
            call.key(key);
        }
        call.arg(self.token).arg(epoch.to_string()).arg(if next == 0 { "done" } else { "" });
        let () = call.invoke_async(&mut self.connection).await?;
        Ok(Some(next).filter(|next| *next != 0))
    }
}
