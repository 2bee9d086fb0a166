//! Devices that want pages of tables in, as many at a time as PostgreSQL is to bear out; the others hear when to ask again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::SyncError;

/// How long a snapshot that has begun waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Snapshots that one connection begins per second, as a cautious guess: what a crowd is spread by.
const PER_SECOND: u64 = 4;

/// The shortest and the longest time within which those that are turned away come back, in seconds.
const SPREAD: (u64, u64) = (3, 120);

/// Lets snapshots of all tenants share a few connections of this replica.
///
/// Who has begun goes first: a snapshot that is not finished was work for nothing, and it keeps the log from being
/// trimmed. Waiting ends in the order in which it began.
#[derive(Debug)]
pub struct Admission {
    turns: Semaphore,
    connections: u64,
    /// Who was turned away and has not been let in since, more or less: who comes back in vain counts again.
    outside: AtomicU64,
}

impl Admission {
    pub fn new(connections: usize) -> Self {
        let turns = Semaphore::new(connections);
        Admission { turns, connections: connections as u64, outside: AtomicU64::new(0) }
    }

    /// A turn, which ends when the permit is dropped.
    ///
    /// # Errors
    /// `Busy` with the seconds after which to ask again: at once for a snapshot that would only begin, after a wait for one
    /// that is under way.
    pub async fn admit(&self, begins: bool) -> Result<SemaphorePermit<'_>, SyncError> {
        let turn = match begins {
            // Fails while anybody waits, too: the semaphore is fair.
            true => self.turns.try_acquire().ok(),
            false => timeout(PATIENCE, self.turns.acquire()).await.ok().and_then(Result::ok),
        };
        match turn {
            Some(turn) => {
                let less = |outside: u64| outside.checked_sub(1);
                let _ = self.outside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
                Ok(turn)
            }
            None => {
                let outside = self.outside.fetch_add(1, Ordering::Relaxed) + 1;
                Err(SyncError::Busy { seconds: self.spread(outside, begins, rand::random()) })
            }
        }
    }

    /// When to come back, anywhere within the time that the crowd outside needs; `random` is uniform.
    fn spread(&self, outside: u64, begins: bool, random: u32) -> u64 {
        let (least, most) = SPREAD;
        let span = match begins {
            true => (outside / (self.connections * PER_SECOND).max(1)).clamp(least, most),
            false => least,
        };
        1 + u64::from(random) % span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_begun_goes_first_and_who_has_not_is_turned_away() {
        let admission = Admission::new(1);
        let held = admission.admit(true).await.unwrap();
        assert!(matches!(admission.admit(true).await, Err(SyncError::Busy { seconds: 1..=3 })));
        let mut waiting = std::pin::pin!(admission.admit(false));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(held);
        assert!(admission.admit(true).await.is_err(), "somebody waits");
        drop(waiting.await.unwrap());
        assert!(admission.admit(true).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_hears_of_it() {
        let admission = Admission::new(1);
        let _held = admission.admit(true).await.unwrap();
        assert!(matches!(admission.admit(false).await, Err(SyncError::Busy { seconds: 1..=3 })));
    }

    #[test]
    fn a_large_crowd_is_spread_over_the_time_that_it_needs() {
        let admission = Admission::new(5);
        let latest = |outside| (0..1000).map(|random| admission.spread(outside, true, random)).max().unwrap();
        assert_eq!([1, 200, 1_000, 1_000_000].map(latest), [3, 10, 50, 120]);
        assert_eq!(admission.spread(1_000_000, false, 2), 3);
    }
}
