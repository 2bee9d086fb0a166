//! Work in, its result out, or in time the news that there is none; connections in doubt are not lent again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use deadpool_postgres::{Client, Object, Pool};
use posduif_changelog::LogState;
use tokio::time::timeout;

use super::{StoreError, lineage::Lineage, wal};

/// One tenant's database.
#[derive(Clone)]
pub struct Database {
    pool: Arc<ArcSwap<Pool>>,
    deadline: Duration,
    lineage: Arc<Lineage>,
}

/// A connection at work. Dropped with it, by a deadline or by a caller that went away, it leaves the pool: the
/// server may still be busy with a statement whose answer nobody reads.
struct AtWork(Option<Client>);

impl Drop for AtWork {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(client));
        }
    }
}

impl Database {
    /// `deadline` is for one piece of work, the wait for a connection and all commits included.
    pub fn new(pool: Pool, deadline: Duration) -> Self {
        Database { pool: Arc::new(ArcSwap::from_pointee(pool)), deadline, lineage: Arc::default() }
    }

    /// Takes note of which server the log follows: connections to one that it has left are no longer used.
    pub fn follow(&self, log: &LogState) {
        self.lineage.hear(log, Instant::now());
    }

    /// A connection that leads, as far as this replica knows, to the server that the log follows.
    async fn lend(&self) -> Result<AtWork, StoreError> {
        let pool = self.pool.load_full();
        loop {
            // What is dropped here leaves the pool.
            let at_work = AtWork(Some(pool.get().await?));
            let Some(client) = &at_work.0 else { continue };
            let metrics = *Object::metrics(client);
            if self.lineage.predates(metrics.created) {
                continue;
            }
            if metrics.recycle_count == 0 {
                let timeline = wal::timeline(client).await?;
                if self.lineage.has_left(timeline) {
                    return Err(StoreError::Unavailable(format!(
                        "the server at the tenant's url is on timeline {timeline}, which the log has left: it was \
                         replaced; lead the url to the new primary"
                    )));
                }
            }
            return Ok(at_work);
        }
    }

    /// From now on connections come from this pool; those of the earlier one close as their work ends.
    pub fn reach_by(&self, pool: Pool) {
        self.pool.store(Arc::new(pool));
    }

    /// Does the work on a connection of the pool.
    ///
    /// # Errors
    /// `Unavailable` when PostgreSQL cannot be reached, every connection stays busy or the deadline passes; what
    /// the work has committed by then is unknown. Else what the work says.
    pub async fn run<T, E: From<StoreError>>(
        &self,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, E>,
    ) -> Result<T, E> {
        let worked = async {
            let mut at_work = self.lend().await?;
            let Some(client) = &mut at_work.0 else {
                return Err(StoreError::Unavailable("no connection was lent".to_owned()).into());
            };
            let outcome = work(client).await;
            drop(at_work.0.take());
            outcome
        };
        match timeout(self.deadline, worked).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let late = format!("no end within {} s", self.deadline.as_secs_f32());
                Err(StoreError::Unavailable(late).into())
            }
        }
    }
}
