//! All SQL of the API, one file per table; nothing outside this folder names a column.

pub mod catalogue;
pub mod credentials;
pub mod devices;
pub mod enrollment_tokens;
pub mod error;
pub mod messages;
pub mod snapshot;
pub mod users;
pub mod wal;

use std::time::Duration;

use deadpool_postgres::{Client, Pool};
use posduif_runtime::backoff::Backoff;

pub use error::StoreError;

/// Runs of one transaction before its caller is told to come back.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// One tenant's database.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
}

impl Database {
    pub fn new(pool: Pool) -> Self {
        Database { pool }
    }

    /// A connection from the pool.
    ///
    /// # Errors
    /// `Unavailable` when PostgreSQL cannot be reached or every connection stays busy.
    pub async fn client(&self) -> Result<Client, StoreError> {
        Ok(self.pool.get().await?)
    }

    /// Whether the server answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.client().await?.batch_execute("").await?)
    }
}

/// Repeats a whole transaction while it loses against concurrent ones.
pub async fn repeat_while_contended<T>(
    mut transaction: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    for _ in 1..ATTEMPTS {
        match transaction().await {
            Err(StoreError::Contended(_)) => tokio::time::sleep(backoff.next_pause(rand::random())).await,
            outcome => return outcome,
        }
    }
    transaction().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contended() -> StoreError {
        StoreError::Contended("40P01".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_transaction_that_lost_is_run_again_a_few_times() {
        let mut runs = 0;
        let outcome = repeat_while_contended(async || {
            runs += 1;
            if runs < 3 { Err(contended()) } else { Ok(runs) }
        });
        assert_eq!(outcome.await.unwrap(), 3);
        let mut runs = 0;
        let outcome: Result<(), _> = repeat_while_contended(async || {
            runs += 1;
            Err(contended())
        })
        .await;
        assert!(matches!(outcome, Err(StoreError::Contended(_))));
        assert_eq!(runs, ATTEMPTS);
    }
}
