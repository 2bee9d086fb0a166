//! All SQL of the API, one file per table; nothing outside this folder names a column.

pub mod catalogue;
pub mod columns;
pub mod credentials;
mod database;
pub mod devices;
pub mod enrollment_tokens;
pub mod error;
mod lineage;
pub mod messages;
pub mod presence;
pub mod row_versions;
pub mod sent_messages;
pub mod snapshot;
pub mod sync_metadata;
pub mod upload_receipts;
pub mod users;
pub mod wal;
pub mod winners;
pub mod writable;
mod writing;

use std::time::Duration;

use posduif_runtime::backoff::Backoff;
use tokio::time::Instant;

pub use database::Database;
pub use error::StoreError;

/// Runs of one transaction before its caller is told to come back.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// After this long no further run begins: a lock that was awaited in vain is not awaited again and again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Repeats a whole transaction while it loses against concurrent ones.
pub async fn repeat_while_contended<T>(
    mut transaction: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let give_up = Instant::now() + PATIENCE;
    for _ in 1..ATTEMPTS {
        match transaction().await {
            Err(StoreError::Contended(_)) if Instant::now() < give_up => {
                tokio::time::sleep(backoff.next_pause(rand::random())).await;
            }
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

    #[tokio::test(start_paused = true)]
    async fn a_transaction_that_waits_long_each_time_is_not_run_as_often() {
        let mut runs = 0;
        let outcome: Result<(), _> = repeat_while_contended(async || {
            runs += 1;
            tokio::time::sleep(PATIENCE * 2 / 3).await;
            Err(contended())
        })
        .await;
        assert!(matches!(outcome, Err(StoreError::Contended(_))));
        assert_eq!(runs, 2);
    }
}
