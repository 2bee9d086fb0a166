//! A growing log in, one of bounded size out: trimmed, compacted, and without the epochs before it.

use std::{sync::Arc, time::Duration};

use posduif_changelog::{CommitRecord, LogError, LogWriter, durability};
use posduif_model::{Epoch, Lsn};
use posduif_runtime::{config::RetentionConfig, readiness::Readiness};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};

use crate::{
    link::{COMPONENT, Link},
    metrics::IngesterMetrics,
    retention::Limits,
};

/// Keeps one tenant's log within its limits.
pub struct Upkeep {
    pub link: Link,
    pub epoch: Epoch,
    pub retention: RetentionConfig,
    /// Woken when Redis refused a write because its memory is full.
    pub pressure: Arc<Notify>,
    pub readiness: Readiness,
    pub metrics: IngesterMetrics,
    pub tenant: String,
    /// Entries of the shared bucket after the last compaction.
    pub shared_kept: usize,
}

/// Commits looked at once.
const STEP: usize = 1_000;
/// How long the keys of a replaced epoch stay, in seconds: longer than any request that may still read them.
const GRACE: u64 = 600;
/// Under pressure half of the log goes, but not again within this time: memory is freed in the background.
const RELIEF: Duration = Duration::from_secs(2);

impl Upkeep {
    /// Runs until an error that waiting does not heal.
    ///
    /// # Errors
    /// `Fenced` and `Diverged`: the log is no longer this session's. `Corrupt`: the next one opens an epoch.
    pub async fn run(mut self) -> Result<(), LogError> {
        let mut timer = interval(self.retention.interval);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let pressure = Arc::clone(&self.pressure);
        loop {
            let pressed = tokio::select! {
                _ = timer.tick() => false,
                () = pressure.notified() => true,
            };
            match self.look(pressed).await {
                Ok(()) => self.link.succeeded(),
                // A copy without room is not made; the trim that frees memory has run before it.
                Err(LogError::OutOfMemory(_)) => {}
                Err(error) => {
                    // It would be found by every session, and by readers; the log is only a copy.
                    if let LogError::Corrupt(_) = error {
                        self.link.writer.give_up(&self.epoch, &error.to_string()).await?;
                    }
                    self.link.wait_out(error).await?;
                }
            }
            if pressed {
                tokio::time::sleep(RELIEF).await;
            }
        }
    }

    async fn look(&mut self, pressed: bool) -> Result<(), LogError> {
        self.trim(pressed).await?;
        // Every read looks at the epoch first, so whoever still reads an earlier one is told the same either way.
        self.sweep(if pressed { 0 } else { GRACE }).await?;
        if !pressed {
            self.compact().await?;
            let concerns = durability::concerns(self.link.writer.connection()).await?;
            match concerns.is_empty() {
                true => self.readiness.ready(COMPONENT),
                false => self.readiness.degraded(COMPONENT, concerns.join("; ")),
            }
        }
        Ok(())
    }

    async fn trim(&mut self, pressed: bool) -> Result<(), LogError> {
        let writer = &mut self.link.writer;
        let Some(state) = writer.state().await?.filter(|state| state.epoch == self.epoch) else {
            return Err(LogError::Diverged("the epoch changed".to_owned()));
        };
        let Some(newest) = at(writer, &self.epoch, state.watermark.commit).await? else {
            return Ok(());
        };
        let mut limits = Limits { age: self.retention.max_age, bytes: self.retention.max_bytes };
        let mut held = writer.leased(&self.epoch).await?;
        if pressed {
            let oldest = writer.commits(&self.epoch, Lsn::ZERO, newest.commit, 1).await?;
            let kept = oldest.first().map_or(0, |oldest| newest.written.saturating_sub(oldest.written));
            limits.bytes = (kept / 2).min(limits.bytes).max(1);
            // Snapshots begin again; that is better than a log that cannot be written.
            held = None;
        }
        let floor = floor(writer, &self.epoch, &limits, &newest, held).await?.max(state.floor);
        let removed = writer.trim(&self.epoch, floor).await?;
        self.metrics.trimmed.with_label_values(&[&self.tenant]).inc_by(removed);
        if pressed && floor > state.floor {
            tracing::error!(
                tenant = self.tenant, %floor, removed,
                "Redis is out of memory: half of the log was removed, devices below it resync; raise maxmemory or lower \
                 sync.retention.max_bytes"
            );
        }
        Ok(())
    }

    /// Compacts the shared bucket once it has doubled.
    async fn compact(&mut self) -> Result<(), LogError> {
        let writer = &mut self.link.writer;
        let length = writer.shared_length(&self.epoch).await?;
        if length < self.retention.compact_entries || length / 2 < self.shared_kept {
            return Ok(());
        }
        let Some(state) = writer.state().await? else { return Ok(()) };
        let done = writer.compact_shared(&self.epoch, state.watermark.commit).await?;
        self.shared_kept = done.kept;
        self.metrics
            .compacted
            .with_label_values(&[&self.tenant])
            .inc_by(u64::try_from(done.removed).unwrap_or(0));
        tracing::info!(tenant = self.tenant, done.removed, done.kept, "compacted what everyone sees");
        Ok(())
    }

    /// Removes the epochs that were replaced at least `grace` seconds ago.
    async fn sweep(&mut self, grace: u64) -> Result<(), LogError> {
        let writer = &mut self.link.writer;
        for epoch in writer.retired(grace).await? {
            let mut cursor = Some(0);
            while let Some(next) = cursor {
                cursor = writer.sweep(&epoch, next).await?;
            }
            tracing::info!(tenant = self.tenant, %epoch, "removed the log of an earlier epoch");
        }
        Ok(())
    }
}

async fn at(writer: &mut LogWriter, epoch: &Epoch, commit: Lsn) -> Result<Option<CommitRecord>, LogError> {
    let before = Lsn::new(commit.get().saturating_sub(1));
    Ok(writer.commits(epoch, before, commit, 1).await?.pop())
}

/// The newest commit that the limits let go, `ZERO` where they keep all.
async fn floor(
    writer: &mut LogWriter,
    epoch: &Epoch,
    limits: &Limits,
    newest: &CommitRecord,
    held: Option<Lsn>,
) -> Result<Lsn, LogError> {
    let mut floor = Lsn::ZERO;
    loop {
        let records = writer.commits(epoch, floor, newest.commit, STEP).await?;
        let goes = records.iter().take_while(|record| limits.forgets(record, newest, held)).count();
        let Some(last) = goes.checked_sub(1).and_then(|last| records.get(last)) else {
            return Ok(floor);
        };
        floor = last.commit;
        if goes < records.len() {
            return Ok(floor);
        }
    }
}
