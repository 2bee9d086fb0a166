//! Published watermarks in, the position that PostgreSQL may forget out: the only place that decides it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use posduif_model::Lsn;

/// What may be confirmed to PostgreSQL.
///
/// Redis may lose the last moments of what it acknowledged (its append-only file is synced about once a
/// second). So a watermark is confirmed when Redis vouches to have it on disk; where it cannot tell, when the watermark
/// is `delay` old and still there: what a crash of Redis takes away is then sent by PostgreSQL again, under the same ids.
#[derive(Debug)]
pub struct Progress {
    start: Instant,
    delay: Duration,
    confirmed: Lsn,
    /// Watermark ends by the tick at which they are due; the newest of a tick stands for it.
    published: VecDeque<(u128, Lsn)>,
    heartbeats: VecDeque<(Lsn, i64)>,
    confirmed_heartbeat: i64,
}

/// Precision of the delay: bounds the queue to a few entries per second, however many commits there are.
const TICK: Duration = Duration::from_millis(200);

impl Progress {
    /// Begins at the position that the slot has confirmed already.
    pub fn new(confirmed: Lsn, delay: Duration, now: Instant) -> Self {
        Progress {
            start: now,
            delay,
            confirmed,
            published: VecDeque::new(),
            heartbeats: VecDeque::new(),
            confirmed_heartbeat: 0,
        }
    }

    /// The watermark's end moved to `end`, and past the heartbeat with this sequence number.
    pub fn published(&mut self, now: Instant, end: Lsn, heartbeat: Option<i64>) {
        if let Some(sequence) = heartbeat {
            self.heartbeats.push_back((end, sequence));
        }
        let due = (now + self.delay).duration_since(self.start).as_nanos().div_ceil(TICK.as_nanos());
        match self.published.back_mut() {
            Some((tick, newest)) if *tick == due => *newest = end,
            _ => self.published.push_back((due, end)),
        }
    }

    /// The newest watermark end that is old enough, if it is not confirmed yet.
    pub fn due(&self, now: Instant) -> Option<Lsn> {
        let tick = self.tick(now);
        let due = self.published.iter().take_while(|(due, _)| *due <= tick).last();
        due.map(|(_, end)| *end).filter(|end| *end > self.confirmed)
    }

    fn tick(&self, now: Instant) -> u128 {
        now.duration_since(self.start).as_nanos() / TICK.as_nanos()
    }

    /// What may be confirmed now; never moves back. `proven` is what Redis has on disk, `None` where it cannot tell.
    pub fn confirmable(&mut self, now: Instant, proven: Option<Lsn>) -> Lsn {
        let tick = self.tick(now);
        while let Some((_, end)) = self.published.pop_front_if(|(due, _)| *due <= tick) {
            if proven.is_none() {
                self.confirmed = self.confirmed.max(end);
            }
        }
        self.confirmed = self.confirmed.max(proven.unwrap_or_default());
        let confirmed = self.confirmed;
        while let Some((_, sequence)) = self.heartbeats.pop_front_if(|(end, _)| *end <= confirmed) {
            self.confirmed_heartbeat = sequence;
        }
        confirmed
    }

    /// The newest heartbeat at or below what is confirmed; older rows are no longer needed.
    pub fn confirmed_heartbeat(&self) -> i64 {
        self.confirmed_heartbeat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_is_confirmed_before_it_is_old_enough() {
        let start = Instant::now();
        let mut progress = Progress::new(Lsn::new(5), 10 * SECOND, start);
        progress.published(start, Lsn::new(7), Some(1));
        progress.published(start + SECOND, Lsn::new(9), None);
        assert_eq!(progress.confirmable(start + SECOND * 9, None), Lsn::new(5));
        assert_eq!(progress.due(start + SECOND * 9), None);
        assert_eq!(progress.due(start + SECOND * 11), Some(Lsn::new(9)));
        assert_eq!(progress.confirmed_heartbeat(), 0);
        assert_eq!(progress.confirmable(start + SECOND * 10, None), Lsn::new(7));
        assert_eq!(progress.confirmed_heartbeat(), 1);
        assert_eq!(progress.confirmable(start + SECOND * 11, None), Lsn::new(9));
        assert_eq!(progress.due(start + SECOND * 11), None);
    }

    #[test]
    fn many_commits_of_one_moment_take_one_place_and_wait_for_the_newest() {
        let start = Instant::now();
        let mut progress = Progress::new(Lsn::ZERO, SECOND, start);
        for end in 1..=1000 {
            progress.published(start + Duration::from_micros(end), Lsn::new(end), None);
        }
        assert_eq!(progress.published.len(), 1);
        assert_eq!(progress.confirmable(start + SECOND, None), Lsn::ZERO);
        assert_eq!(progress.confirmable(start + SECOND + TICK, None), Lsn::new(1000));
    }

    #[test]
    fn what_redis_has_on_disk_is_confirmed_at_once_and_nothing_else_however_old() {
        let start = Instant::now();
        let mut progress = Progress::new(Lsn::new(5), SECOND, start);
        progress.published(start, Lsn::new(7), Some(1));
        progress.published(start, Lsn::new(9), Some(2));
        assert_eq!(progress.confirmable(start, Some(Lsn::new(7))), Lsn::new(7));
        assert_eq!(progress.confirmed_heartbeat(), 1);
        assert_eq!(progress.confirmable(start + SECOND * 60, Some(Lsn::new(7))), Lsn::new(7));
        assert_eq!(progress.confirmable(start + SECOND * 60, Some(Lsn::new(6))), Lsn::new(7));
    }
}
