//! WAL events in, batches in the log out.

use std::{sync::Arc, time::Instant};

use posduif_changelog::LogError;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::{
    appender::Appender,
    gate::Stored,
    lookout::{Lookout, LookoutError},
    metrics::IngesterMetrics,
    transaction::{Assembler, Finished, StreamError},
    vitals::Vitals,
    wal::WalEvent,
};

/// A pipeline that cannot go on; a new session starts again from what the log has.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Lookout(#[from] LookoutError),
    #[error("the replication stream or the gate is gone")]
    Abandoned,
}

/// How large a batch may grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes: usize,
    pub transactions: usize,
}

/// Entries per batch: keeps one script call short, Redis does nothing else meanwhile.
pub const MOST_ENTRIES: usize = 2_000;

/// Decodes, routes and stores one tenant's stream.
pub struct Pipeline {
    pub assembler: Assembler,
    pub lookout: Lookout,
    /// Where the lookout asks.
    pub client: Arc<Client>,
    pub appender: Appender,
    /// Cancelled when the source shall change: the pipeline ends between two transactions, with everything stored.
    pub leave: CancellationToken,
    pub limits: Limits,
    pub gate: mpsc::Sender<Stored>,
    pub metrics: IngesterMetrics,
    pub vitals: Arc<Vitals>,
    pub tenant: String,
}

impl Pipeline {
    /// Runs until the stream or an error ends it, or it shall leave.
    pub async fn run(mut self, events: &mut mpsc::Receiver<WalEvent>) -> Result<(), PipelineError> {
        let mut finished = Vec::new();
        loop {
            if self.leave.is_cancelled() && self.assembler.is_idle() {
                return self.store(&mut finished).await;
            }
            let event = match events.try_recv() {
                Ok(event) => event,
                Err(TryRecvError::Disconnected) => return Err(PipelineError::Abandoned),
                // Nothing more at hand: what is complete shall not wait.
                Err(TryRecvError::Empty) => {
                    if !finished.is_empty() {
                        self.store(&mut finished).await?;
                    }
                    tokio::select! {
                        event = events.recv() => event.ok_or(PipelineError::Abandoned)?,
                        () = self.leave.cancelled(), if self.assembler.is_idle() => continue,
                    }
                }
            };
            // Rows that leave nothing in the batch are decoded without a pause; the other tenants' tasks need a turn.
            tokio::task::coop::consume_budget().await;
            match event {
                WalEvent::Data(payload) => {
                    if let Some(xid) = self.assembler.must_look(&payload.bytes) {
                        // It may take until a standby is back; what is complete shall not wait for that.
                        self.store(&mut finished).await?;
                        self.assembler.looked(self.lookout.look(&self.client, xid).await?);
                    }
                    if let Some(transaction) = self.follow(&payload.bytes).await? {
                        if self.metrics.transaction(&self.tenant, &transaction.tally, transaction.left_out) {
                            self.vitals.changes(Instant::now());
                        }
                        for left_out in &transaction.rows_left_out {
                            left_out.report(&self.metrics, &self.tenant, transaction.commit);
                        }
                        finished.push(Stored::Commit {
                            commit: transaction.commit,
                            end: transaction.end,
                            xid: transaction.xid,
                            committed_at: transaction.committed_at,
                            heartbeat: transaction.heartbeat,
                            left_out: transaction.left_out,
                        });
                    }
                }
                // In the middle of a transaction "all sent" says nothing about that transaction.
                WalEvent::Keepalive(end) if self.assembler.is_idle() => finished.push(Stored::Drained(end)),
                WalEvent::Keepalive(_) => {}
            }
            let batch = &self.appender.batch;
            let full = batch.bytes() >= self.limits.bytes || batch.commands() >= MOST_ENTRIES;
            if full || finished.len() >= self.limits.transactions {
                self.store(&mut finished).await?;
            }
        }
    }

    /// Follows one message. A row that cannot be synced will come again at every attempt: the log ends here and the
    /// next one begins after it, with snapshots, once the table is in order.
    async fn follow(&mut self, bytes: &[u8]) -> Result<Option<Finished>, PipelineError> {
        match self.assembler.follow(bytes, &mut self.appender.batch) {
            Ok(finished) => Ok(finished),
            Err(error) => {
                if let StreamError::Row { .. } | StreamError::Table { .. } = error {
                    let epoch = self.appender.batch.epoch();
                    self.appender.link.writer.give_up(&epoch, &error.to_string()).await?;
                }
                Err(error.into())
            }
        }
    }

    /// Stores the batch, then tells the gate which transactions are complete.
    async fn store(&mut self, finished: &mut Vec<Stored>) -> Result<(), PipelineError> {
        let batch = &self.appender.batch;
        if !batch.is_empty() {
            let (bytes, entries, begun) = (batch.bytes(), batch.commands(), Instant::now());
            self.appender.append(self.assembler.first_new()).await?;
            self.metrics.stored(&self.tenant, bytes, entries, begun.elapsed());
        }
        for stored in finished.drain(..) {
            if let Stored::Commit { commit, .. } = stored {
                self.appender.stored = commit;
            }
            self.gate.send(stored).await.map_err(|_| PipelineError::Abandoned)?;
        }
        Ok(())
    }
}
