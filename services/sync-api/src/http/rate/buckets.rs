//! A key in, a place taken in its bucket out, in bounded memory.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    num::NonZeroU32,
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DefaultKeyedStateStore,
};

use super::level::{Exhausted, Level};

/// A bucket of what is kept when many are gone at once.
const WORTH_SHRINKING: usize = 1024;

type Limiter = RateLimiter<u64, DefaultKeyedStateStore<u64>, DefaultClock, StateInformationMiddleware>;

/// What happens to callers whose bucket has no room in memory.
#[derive(Clone, Copy, Debug)]
pub enum Overflow {
    /// They share one bucket: strangers, who may be as many as they like.
    Shared,
    /// They pass: who has proven itself was let in by somebody.
    Admitted,
}

/// One bucket per key, all of one size. A full bucket takes no memory.
#[derive(Debug)]
pub struct Buckets {
    limiter: Limiter,
    /// Keys are kept as hashes that nobody outside can predict: of a fixed size, whatever callers make up.
    hashes: RandomState,
    per_minute: NonZeroU32,
    size: NonZeroU32,
    most: usize,
    overflow: Overflow,
}

impl Buckets {
    /// Buckets of `size` that fill by `per_minute`, at most `most` of them.
    pub fn new(per_minute: u32, size: u32, most: usize, overflow: Overflow) -> Self {
        let per_minute = NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN);
        let size = NonZeroU32::new(size).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_minute(per_minute).allow_burst(size);
        let limiter = RateLimiter::keyed(quota).with_middleware();
        Buckets { limiter, hashes: RandomState::new(), per_minute, size, most, overflow }
    }

    /// Takes one from the key's bucket.
    pub fn take(&self, key: impl Hash) -> Result<Level, Exhausted> {
        let mut hash = self.hashes.hash_one(key);
        if self.limiter.len() >= self.most {
            match self.overflow {
                Overflow::Shared => hash = 0,
                Overflow::Admitted => return Ok(self.level(self.size.get())),
            }
        }
        match self.limiter.check_key(&hash) {
            Ok(state) => Ok(self.level(state.remaining_burst_capacity())),
            Err(until) => {
                let wait = until.wait_time_from(self.limiter.clock().now());
                Err(Exhausted { level: self.level(0), retry_after: whole_seconds(wait).max(1) })
            }
        }
    }

    /// Forgets the buckets that are full again.
    pub fn sweep(&self) {
        let before = self.limiter.len();
        self.limiter.retain_recent();
        if before.saturating_sub(self.limiter.len()) > WORTH_SHRINKING {
            self.limiter.shrink_to_fit();
        }
    }

    /// How many are kept.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.limiter.len()
    }

    fn level(&self, remaining: u32) -> Level {
        let missing = u64::from(self.size.get().saturating_sub(remaining));
        let reset = (missing * 60).div_ceil(u64::from(self.per_minute.get()));
        Level { limit: self.size.get(), remaining, reset }
    }
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_emptied_by_its_own_key_only_and_says_when_it_fills() {
        let buckets = Buckets::new(1, 3, 10, Overflow::Shared);
        let level = |remaining, reset| Level { limit: 3, remaining, reset };
        assert_eq!(buckets.take("a"), Ok(level(2, 60)));
        assert_eq!(buckets.take("a"), Ok(level(1, 120)));
        assert_eq!(buckets.take("a"), Ok(level(0, 180)));
        let exhausted = buckets.take("a").unwrap_err();
        assert_eq!(exhausted.level, level(0, 180));
        assert!((59..=60).contains(&exhausted.retry_after), "{exhausted:?}");
        assert_eq!(buckets.take("b"), Ok(level(2, 60)));
    }

    #[test]
    fn strangers_beyond_the_most_share_one_bucket_and_the_proven_pass() {
        let strangers = Buckets::new(1, 2, 100, Overflow::Shared);
        let proven = Buckets::new(1, 2, 100, Overflow::Admitted);
        let taken = |buckets: &Buckets| (0..10_000).filter(|key| buckets.take(key).is_ok()).count();
        assert_eq!(taken(&strangers), 102);
        assert_eq!(taken(&proven), 10_000);
        assert!(strangers.len() <= 101 && proven.len() <= 100);
    }

    #[test]
    fn full_buckets_are_forgotten() {
        // Filled again after 60 nanoseconds.
        let buckets = Buckets::new(1_000_000_000, 1, 10_000, Overflow::Shared);
        for key in 0..5_000 {
            assert!(buckets.take(key).is_ok());
        }
        assert_eq!(buckets.len(), 5_000);
        std::thread::sleep(Duration::from_millis(1));
        buckets.sweep();
        assert_eq!(buckets.len(), 0);
    }
}
