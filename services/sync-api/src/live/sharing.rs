//! Changes that everyone sees in, whose turn it is to hear of them out: nobody's more than once per interval.

use std::time::Duration;

use tokio::time::Instant;

/// Connections take turns in so many groups, so that a change wakes a few at a time and not all at once.
const GROUPS: u64 = 16;

/// The turns of one tenant.
#[derive(Debug)]
pub struct Sharing {
    step: Duration,
    /// Changes so far.
    count: u64,
    /// The group whose turn is next.
    group: u64,
    /// Turns until all have heard of the newest change.
    left: u64,
    next: Instant,
}

impl Sharing {
    pub fn new(interval: Duration, now: Instant) -> Self {
        let groups = u32::try_from(GROUPS).unwrap_or(1);
        Sharing { step: interval / groups, count: 0, group: 0, left: 0, next: now }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Notes changes.
    pub fn add(&mut self, changes: u64, now: Instant) {
        if changes == 0 {
            return;
        }
        if self.left == 0 {
            self.next = self.next.max(now);
        }
        self.count = self.count.saturating_add(changes);
        self.left = GROUPS;
    }

    /// When the next turn is, if there is something to hear.
    pub fn due(&self) -> Option<Instant> {
        (self.left > 0).then_some(self.next)
    }

    /// The group whose turn it is by now; to be asked again until it says nothing.
    pub fn turn(&mut self, now: Instant) -> Option<u64> {
        if self.left == 0 || now < self.next {
            return None;
        }
        let group = self.group;
        self.group = (group + 1) % GROUPS;
        self.left -= 1;
        // Measured from now: turns that were missed are not made up for in a burst.
        self.next = now + self.step;
        Some(group)
    }

    /// Whether the connection belongs to this group.
    pub fn is_in(number: u64, group: u64) -> bool {
        number % GROUPS == group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_a_turn_after_a_change_and_never_two_within_the_interval() {
        let (interval, started) = (Duration::from_millis(1600), Instant::now());
        let mut sharing = Sharing::new(interval, started);
        assert_eq!(sharing.turn(started), None);
        let mut turns: Vec<Vec<Instant>> = vec![Vec::new(); 16];
        for millisecond in 0..10_000 {
            let now = started + Duration::from_millis(millisecond);
            if millisecond < 5_000 {
                sharing.add(1, now);
            }
            while let Some(group) = sharing.turn(now) {
                turns[usize::try_from(group).unwrap()].push(now);
            }
        }
        assert_eq!(sharing.due(), None);
        for heard in turns {
            assert!(heard.len() >= 4 && *heard.last().unwrap() >= started + Duration::from_secs(5));
            assert!(heard.windows(2).all(|pair| pair[1] - pair[0] >= interval), "{heard:?}");
        }
    }
}
