//! Work in, its result out, or in time the news that there is none; connections in doubt are not lent again.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use deadpool_postgres::{Client, Object, Pool};
use tokio::time::timeout;

use super::StoreError;

/// One tenant's database.
#[derive(Clone)]
pub struct Database {
    pool: Arc<ArcSwap<Pool>>,
    deadline: Duration,
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
        Database { pool: Arc::new(ArcSwap::from_pointee(pool)), deadline }
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
            let mut at_work = AtWork(None);
            let pool = self.pool.load_full();
            let client = pool.get().await.map_err(StoreError::from)?;
            drop(pool);
            let outcome = work(at_work.0.insert(client)).await;
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
