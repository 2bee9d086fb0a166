//! The oldest commits of the log in, up to which of them it is trimmed out; no I/O.

use std::time::Duration;

use posduif_changelog::CommitRecord;
use posduif_model::Lsn;

/// How much of the log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub age: Duration,
    pub bytes: u64,
}

/// A snapshot under way holds the floor until the log has this many times the bytes it should.
const MOST_FOR_SNAPSHOTS: u64 = 2;

impl Limits {
    /// Whether the log may forget a commit, seen from the newest one.
    ///
    /// Both times are PostgreSQL's own, so no clock of another machine plays a part; heartbeats keep the newest one
    /// young. `held` is the lowest commit that a snapshot under way still needs.
    pub fn forgets(&self, old: &CommitRecord, newest: &CommitRecord, held: Option<Lsn>) -> bool {
        let bytes = newest.written.saturating_sub(old.written);
        let age = u128::from(newest.committed_at.saturating_sub(old.committed_at).max(0).unsigned_abs());
        let due = bytes >= self.bytes || age >= self.age.as_micros();
        let is_held = held.is_some_and(|held| old.commit > held);
        due && (!is_held || bytes >= self.bytes.saturating_mul(MOST_FOR_SNAPSHOTS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn commit(lsn: u64, written: u64, committed_at: i64) -> CommitRecord {
        CommitRecord {
            commit: Lsn::new(lsn),
            end: Lsn::new(lsn),
            previous: Lsn::ZERO,
            xid: 0,
            changes: 0,
            committed_at,
            origin: None,
            buckets: vec![],
            buckets_elsewhere: false,
            written,
            left_out: false,
            seen: None,
        }
    }

    #[test]
    fn what_is_too_old_or_too_much_goes_and_snapshots_hold_it_for_a_while() {
        let limits = Limits { age: Duration::from_secs(2 * 86_400), bytes: 1_000 };
        let newest = commit(100, 5_000, 10 * DAY);
        let forgets =
            |old: CommitRecord, held: Option<u64>| limits.forgets(&old, &newest, held.map(Lsn::new));
        assert!(!forgets(commit(50, 4_500, 9 * DAY), None));
        assert!(forgets(commit(50, 4_500, 8 * DAY), None), "too old");
        assert!(forgets(commit(50, 4_000, 9 * DAY), None), "too much");
        assert!(!forgets(commit(50, 4_000, 8 * DAY), Some(49)), "a snapshot replays from below");
        assert!(forgets(commit(50, 4_000, 8 * DAY), Some(50)), "the snapshot holds it already");
        assert!(forgets(commit(50, 3_000, 9 * DAY), Some(49)), "a snapshot cannot fill Redis");
        assert!(!limits.forgets(&newest, &newest, None), "the newest commit always stays");
    }
}
