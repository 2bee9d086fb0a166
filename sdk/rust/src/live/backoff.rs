//! A number of failures in, how long to wait before the next try out.

use std::time::Duration;

/// Full jitter: any wait up to a ceiling that doubles with every failure in a row, so that devices that failed
/// together do not come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Backoff { base, cap, failures: 0 }
    }

    /// The longest wait after the next failure.
    pub fn ceiling(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// Counts a failure; `draw` is a random number from 0 to 1.
    pub fn fail(&mut self, draw: f64) -> Duration {
        let wait = self.ceiling().mul_f64(draw.clamp(0.0, 1.0));
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Whether the newest try failed.
    pub fn failing(&self) -> bool {
        self.failures > 0
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_falls_back_with_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let ceilings: Vec<u64> = (0..8).map(|_| backoff.fail(1.0).as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 60, 60]);
        for _ in 0..100 {
            assert_eq!(backoff.fail(1.0).as_secs(), 60);
        }
        assert_eq!(backoff.fail(0.0), Duration::ZERO);
        backoff.reset();
        assert_eq!((backoff.failing(), backoff.fail(0.5)), (false, Duration::from_millis(500)));
    }
}
