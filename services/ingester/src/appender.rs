//! Batches in, the same batches in the log out, each once, however long Redis takes to be there.

use posduif_changelog::{Batch, LogError};
use posduif_model::Lsn;

use crate::link::Link;

/// Stores batches behind the newest commit of the log.
pub struct Appender {
    pub link: Link,
    pub batch: Batch,
    /// The newest commit entry in the log.
    pub stored: Lsn,
}

impl Appender {
    /// Appends the batch and empties it. `first_new` is the one transaction of which an earlier writer may have stored a part.
    ///
    /// After a lost answer it is unknown what was stored. The writer's old connection is dead by then, so nothing more can
    /// come of it: what the commit log has now of this batch is skipped, and of the transaction after that a part may be
    /// there.
    ///
    /// # Errors
    /// Whatever waiting does not heal: `Fenced`, `Diverged`, `Forbidden`, `Corrupt`.
    pub async fn append(&mut self, first_new: Option<Lsn>) -> Result<(), LogError> {
        let mut unsure = false;
        while !self.batch.is_empty() {
            // Once that transaction is stored whole, an id that exists already is an error again.
            let known = first_new.filter(|commit| *commit > self.stored);
            let retried = if unsure { self.batch.first() } else { known };
            let guard = Batch::guard(self.stored, retried);
            match self.link.writer.append(&self.batch, guard).await {
                Ok(_) => break,
                Err(error) => {
                    unsure |= matches!(error, LogError::Unavailable(_));
                    self.link.wait_out(error).await?;
                }
            }
            if unsure {
                self.skip_stored().await?;
            }
        }
        self.batch.clear();
        self.link.succeeded();
        Ok(())
    }

    async fn skip_stored(&mut self) -> Result<(), LogError> {
        let newest = loop {
            let asked = self.link.writer.newest_commit(&self.batch.epoch()).await;
            if let Some(newest) = self.link.outcome(asked).await? {
                break newest;
            }
        };
        // What else the commit log may end with, the append itself refuses.
        if let Some(newest) = newest.map(|newest| newest.commit).filter(|newest| self.batch.finishes(*newest))
        {
            self.batch.skip_through(newest);
            self.stored = newest;
        }
        Ok(())
    }
}
