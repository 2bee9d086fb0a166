//! Published watermarks in, what Redis vouches to have on disk out.

use std::time::Duration;

use posduif_changelog::{LogError, durability::Proof};
use posduif_model::{Epoch, Lsn};
use tokio::{sync::watch, time::sleep};

use crate::link::Link;

/// Asks Redis again and again how much of the log is on disk.
pub struct Prover {
    pub link: Link,
    pub epoch: Epoch,
    pub replicas: u32,
    /// The end of the published watermark.
    pub published: watch::Receiver<Lsn>,
    /// What is on disk; `None` where Redis cannot tell.
    pub proven: watch::Sender<Option<Lsn>>,
    pub tenant: String,
    /// How long Redis may take to answer anything.
    pub response_timeout: Duration,
}

/// Files are synced about once a second.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two proofs: each one writes a little.
const PAUSE: Duration = Duration::from_millis(200);
/// A server that cannot tell may be set up otherwise later.
const ASK_AGAIN: Duration = Duration::from_secs(60);

impl Prover {
    /// Runs until an error that waiting does not heal.
    pub async fn run(mut self) -> Result<(), LogError> {
        let (mut last, patience) = (None, patience(self.response_timeout));
        loop {
            let end = *self.published.borrow_and_update();
            let asked = self.link.writer.prove(&self.epoch, end, self.replicas, patience).await;
            let Some(proof) = self.link.outcome(asked).await? else { continue };
            if last.replace(proof) != Some(proof) {
                report(&self.tenant, proof, self.replicas);
            }
            match proof {
                Proof::OnDisk => {
                    self.proven.send_replace(Some(end));
                    sleep(PAUSE).await;
                    if self.published.changed().await.is_err() {
                        return Ok(());
                    }
                }
                Proof::NotYet => sleep(PAUSE).await,
                Proof::Unsupported => {
                    self.proven.send_replace(None);
                    sleep(ASK_AGAIN).await;
                }
            }
        }
    }
}

/// Redis answers "not yet" before its connection is given up: else a short timeout would look like a Redis that is away.
fn patience(response_timeout: Duration) -> Duration {
    PATIENCE.min(response_timeout / 2)
}

fn report(tenant: &str, proof: Proof, replicas: u32) {
    match proof {
        Proof::OnDisk => tracing::info!(tenant, replicas, "Redis vouches for what it has on disk (WAITAOF)"),
        Proof::NotYet => tracing::warn!(
            tenant,
            replicas,
            "Redis does not have the log on disk in time; PostgreSQL keeps its WAL until it has"
        ),
        Proof::Unsupported if replicas > 0 => tracing::error!(
            tenant,
            replicas,
            "redis.durable_replicas needs a server with WAITAOF and an append-only file; confirming after \
             sync.wal.confirm_delay instead"
        ),
        Proof::Unsupported => {
            tracing::info!(
                tenant,
                "Redis cannot say what is on disk; confirming after sync.wal.confirm_delay"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_says_not_yet_before_its_answer_is_late() {
        for milliseconds in [10, 500, 3_000, 5_000, 60_000] {
            let timeout = Duration::from_millis(milliseconds);
            assert!(patience(timeout) < timeout && patience(timeout) <= PATIENCE);
        }
        assert_eq!(patience(Duration::from_secs(60)), PATIENCE);
    }
}
