//! Failed attempts in, the pause before the next one out.

use std::time::Duration;

/// Exponential back-off with full jitter: each pause is drawn from zero up to a ceiling that doubles until
/// the cap, so that many clients of one failed server do not return in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// The first pause is at most `base`, none is longer than `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Backoff { base, cap, failures: 0 }
    }

    /// Counts a failure; `random` is drawn by the caller from the whole range of its type.
    pub fn next_pause(&mut self, random: u32) -> Duration {
        let doubled = self.base.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.cap).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// After a success the next failure begins at `base` again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(1))
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let mut backoff = backoff();
        let ceilings: Vec<_> = (0..6).map(|_| backoff.next_pause(u32::MAX).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn the_pause_is_drawn_from_zero_to_the_ceiling() {
        assert_eq!(backoff().next_pause(0), Duration::ZERO);
        let middle = backoff().next_pause(u32::MAX / 2);
        assert!((49..=50).contains(&middle.as_millis()), "{middle:?}");
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = backoff();
        backoff.next_pause(0);
        backoff.next_pause(0);
        backoff.reset();
        assert_eq!(backoff.next_pause(u32::MAX), Duration::from_millis(100));
    }

    #[test]
    fn years_of_failures_overflow_nothing() {
        let mut backoff = Backoff { failures: u32::MAX, ..Backoff::new(Duration::MAX, Duration::MAX) };
        assert_eq!(backoff.next_pause(0), Duration::ZERO);
        let mut backoff = Backoff { failures: 4_000, ..self::backoff() };
        assert_eq!(backoff.next_pause(u32::MAX), Duration::from_secs(1));
    }
}
