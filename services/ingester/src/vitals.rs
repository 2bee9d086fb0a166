//! What the parts of a tenant's sessions see in, how old its log is at any moment out; no I/O.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use posduif_model::Lsn;

/// What is known of one tenant, across its sessions.
///
/// Ages must grow while nothing happens, so they are computed when they are asked for. Times of PostgreSQL are compared
/// with its own clock only: what it said last, moved on by this machine's monotonic clock.
#[derive(Debug)]
pub struct Vitals {
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    following: bool,
    paused: bool,
    /// Since when the tenant's database could not be used.
    failing: Option<Instant>,
    /// PostgreSQL's clock, in microseconds since 2000, and when it said so.
    clock: Option<(i64, Instant)>,
    /// When the newest published heartbeat was committed, by that clock.
    beat: Option<i64>,
    moved: Instant,
    /// When a row of a synced table last changed, or since when none has.
    changed: Instant,
    watermark: Option<Lsn>,
    confirmed: Option<Lsn>,
    waiting: usize,
    /// When the oldest transaction that waits was committed, by PostgreSQL's clock.
    oldest_waiting: Option<i64>,
    unready: bool,
    server: Option<Server>,
    /// What the webhook has to tell; the outer absence is that of a webhook.
    webhook: Option<Option<Owed>>,
}

/// When the oldest commit of a call was committed, by PostgreSQL's clock, where the call has one, and since when it is made.
type Owed = (Option<i64>, Instant);

/// What PostgreSQL's views say of the tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// How far the server's WAL is flushed.
    pub wal_end: Lsn,
    /// `wal_status` of the slot (manual 53.20): reserved, extended, unreserved, lost.
    pub wal_status: Option<String>,
    /// Bytes of WAL that can still be written before the slot is in danger; absent where nothing limits it.
    pub safe_wal_bytes: Option<i64>,
    /// `max_slot_wal_keep_size`; absent where it is unlimited.
    pub wal_limit_bytes: Option<i64>,
    /// Bytes of WAL that the server keeps for the slot.
    pub retained_bytes: Option<i64>,
    /// When the current epoch was opened, in seconds since 1970 by PostgreSQL's clock.
    pub epoch_opened: f64,
}

/// A tenant at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Readings {
    /// A session follows the WAL.
    pub following: bool,
    /// An operator wants the tenant to be left alone.
    pub paused: bool,
    /// How old the newest heartbeat is that readers may see.
    pub heartbeat_lag: Option<Duration>,
    /// How long ago the watermark moved, or since when it has not.
    pub watermark_age: Duration,
    pub watermark: Option<Lsn>,
    pub confirmed: Option<Lsn>,
    /// Transactions that are stored and not visible yet, and how long ago the oldest was committed.
    pub waiting: usize,
    pub oldest_waiting: Option<Duration>,
    pub unready: bool,
    pub server: Option<Server>,
    /// How long its receiver has owed the webhook an answer, or the oldest commit of its call is old; absent without one.
    pub webhook_lag: Option<Duration>,
}

impl Vitals {
    /// Nothing is known yet; the watermark counts as standing still from `now` on.
    pub fn new(now: Instant) -> Self {
        let seen = Seen {
            following: false,
            paused: false,
            failing: None,
            clock: None,
            beat: None,
            moved: now,
            changed: now,
            watermark: None,
            confirmed: None,
            waiting: 0,
            oldest_waiting: None,
            unready: false,
            server: None,
            webhook: None,
        };
        Vitals { seen: Mutex::new(seen) }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session begins or ends to follow the WAL; with it ends what is known of transactions that wait.
    pub fn follows(&self, following: bool) {
        let mut seen = self.seen();
        seen.following = following;
        if following {
            seen.failing = None;
        } else {
            (seen.waiting, seen.oldest_waiting) = (0, None);
        }
    }

    /// A session ended because the tenant's database could not be used.
    pub fn fails(&self, now: Instant) {
        self.seen().failing.get_or_insert(now);
    }

    /// For how long that has been so, without a session that followed the WAL in between.
    pub fn failing(&self, now: Instant) -> Duration {
        self.seen().failing.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The tenant is left alone, or no longer.
    pub fn pauses(&self, paused: bool) {
        self.seen().paused = paused;
    }

    /// PostgreSQL told its time at `now`.
    pub fn clock(&self, postgres: i64, now: Instant) {
        self.seen().clock = Some((postgres, now));
    }

    /// A session took over a log whose newest heartbeat was committed at `beat`.
    pub fn took_over(&self, watermark: Lsn, beat: i64, unready: bool) {
        let mut seen = self.seen();
        (seen.watermark, seen.beat, seen.unready) = (Some(watermark), Some(beat), unready);
    }

    /// The watermark's end moved; `beat` is when the newest heartbeat below it was committed, if there is a new one.
    pub fn published(&self, end: Lsn, beat: Option<i64>, now: Instant) {
        let mut seen = self.seen();
        (seen.watermark, seen.moved, seen.beat) = (Some(end), now, beat.or(seen.beat));
    }

    /// Rows of a synced table changed.
    pub fn changes(&self, now: Instant) {
        self.seen().changed = now;
    }

    /// For how long none has.
    pub fn quiet(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.seen().changed)
    }

    pub fn confirmed(&self, confirmed: Lsn) {
        self.seen().confirmed = Some(confirmed);
    }

    /// So many transactions wait to become visible; the oldest was committed at `oldest`.
    pub fn waiting(&self, transactions: usize, oldest: Option<i64>, unready: bool) {
        let mut seen = self.seen();
        (seen.waiting, seen.oldest_waiting, seen.unready) = (transactions, oldest, unready);
    }

    pub fn server(&self, server: Server) {
        self.seen().server = Some(server);
    }

    /// There is a webhook.
    pub fn calls(&self) {
        self.seen().webhook.get_or_insert(None);
    }

    /// What the webhook's receiver has not taken yet.
    pub fn owes(&self, owed: Option<Owed>) {
        self.seen().webhook = Some(owed);
    }

    pub fn read(&self, now: Instant) -> Readings {
        let seen = self.seen();
        let since = |committed: Option<i64>| {
            let (clock, told) = seen.clock?;
            let since_told =
                i64::try_from(now.saturating_duration_since(told).as_micros()).unwrap_or(i64::MAX);
            let age = clock.saturating_add(since_told).saturating_sub(committed?);
            Some(Duration::from_micros(age.try_into().unwrap_or(0)))
        };
        let late = |owed: Option<Owed>| {
            let Some((committed, begun)) = owed else { return Duration::ZERO };
            now.saturating_duration_since(begun).max(since(committed).unwrap_or_default())
        };
        Readings {
            following: seen.following,
            paused: seen.paused,
            heartbeat_lag: since(seen.beat),
            watermark_age: now.saturating_duration_since(seen.moved),
            watermark: seen.watermark,
            confirmed: seen.confirmed,
            waiting: seen.waiting,
            oldest_waiting: since(seen.oldest_waiting),
            unready: seen.unready,
            server: seen.server.clone(),
            webhook_lag: seen.webhook.map(late),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn ages_grow_while_nothing_happens_and_fall_when_a_heartbeat_is_published() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let vitals = Vitals::new(start);
        assert_eq!(vitals.read(after(7)).watermark_age, Duration::from_secs(7));
        assert_eq!(vitals.read(after(7)).heartbeat_lag, None, "PostgreSQL has said nothing yet");
        vitals.clock(100 * SECOND, start);
        vitals.took_over(Lsn::new(5), 97 * SECOND, false);
        assert_eq!(vitals.read(after(10)).heartbeat_lag, Some(Duration::from_secs(13)));
        vitals.published(Lsn::new(9), Some(108 * SECOND), after(10));
        vitals.published(Lsn::new(9), None, after(11));
        assert_eq!(vitals.read(after(12)).heartbeat_lag, Some(Duration::from_secs(4)));
        assert_eq!(vitals.read(after(12)).watermark_age, Duration::from_secs(1));
    }

    #[test]
    fn a_tenant_fails_from_its_first_failure_until_a_session_follows_it() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let vitals = Vitals::new(start);
        assert_eq!(vitals.failing(after(9)), Duration::ZERO);
        vitals.fails(after(10));
        vitals.follows(false);
        vitals.fails(after(15));
        assert_eq!(vitals.failing(after(40)), Duration::from_secs(30));
        vitals.follows(true);
        assert_eq!(vitals.failing(after(41)), Duration::ZERO);
    }

    #[test]
    fn a_webhook_is_as_late_as_its_oldest_commit_or_as_long_as_it_calls() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let vitals = Vitals::new(start);
        assert_eq!(vitals.read(start).webhook_lag, None, "there is none");
        vitals.calls();
        assert_eq!(vitals.read(after(9)).webhook_lag, Some(Duration::ZERO));
        vitals.clock(100 * SECOND, start);
        vitals.owes(Some((Some(40 * SECOND), after(10))));
        vitals.calls();
        assert_eq!(vitals.read(after(10)).webhook_lag, Some(Duration::from_secs(70)));
        vitals.owes(Some((None, after(10))));
        assert_eq!(vitals.read(after(15)).webhook_lag, Some(Duration::from_secs(5)));
        vitals.owes(None);
        assert_eq!(vitals.read(after(99)).webhook_lag, Some(Duration::ZERO));
    }

    #[test]
    fn a_clock_that_postgresql_set_back_makes_no_age_negative() {
        let start = Instant::now();
        let vitals = Vitals::new(start);
        vitals.clock(3 * SECOND, start);
        vitals.waiting(2, Some(9 * SECOND), true);
        let read = vitals.read(start);
        assert_eq!((read.waiting, read.oldest_waiting, read.unready), (2, Some(Duration::ZERO), true));
        vitals.follows(false);
        assert_eq!((vitals.read(start).waiting, vitals.read(start).oldest_waiting), (0, None));
    }
}
