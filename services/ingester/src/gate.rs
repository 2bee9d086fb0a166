//! Stored commits in, the watermark out, never ahead of what PostgreSQL shows to new snapshots.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use posduif_changelog::{Heartbeat, LogError, Supply, Watermark};
use posduif_model::{Epoch, Lsn, Source};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::{
    health::Health,
    heartbeat,
    link::Link,
    metrics::IngesterMetrics,
    progress::Progress,
    visibility::{InvalidSnapshot, Snapshot},
    vitals::Vitals,
};

/// What the log has got, in the order of the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A transaction is stored whole.
    Commit {
        commit: Lsn,
        end: Lsn,
        xid: u32,
        /// By PostgreSQL's clock, in microseconds since 2000.
        committed_at: i64,
        heartbeat: Option<Heartbeat>,
        /// Its rows are not in the log.
        left_out: bool,
    },
    /// The WAL up to here holds nothing more for the log.
    Drained(Lsn),
}

/// A watermark that cannot move.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("the visibility of transactions cannot be asked: {0}")]
    Postgres(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Snapshot(#[from] InvalidSnapshot),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("PostgreSQL did not say within {} s what is visible", PATIENCE.as_secs())]
    Silent,
    #[error("the pipeline is gone")]
    Abandoned,
}

/// Moves one tenant's watermark and decides what is confirmed.
pub struct Gate {
    pub client: Client,
    pub link: Link,
    pub epoch: Epoch,
    pub watermark: Watermark,
    /// What the log has above the watermark, oldest first.
    pub waiting: VecDeque<Stored>,
    /// Snapshots are not served until every transaction below this id has ended.
    pub unready_below: Option<u64>,
    pub supply: Supply,
    /// A snapshot, and where the WAL ended when it had been taken: once the watermark is there, it is seen.
    pub looked: Option<(Snapshot, Lsn)>,
    /// Tells of snapshots of which the log has everything.
    pub seen: watch::Sender<Option<(Snapshot, Lsn)>>,
    /// Cancelled when the source shall change; what is stored is published then, and that it is the last is noted.
    pub leave: CancellationToken,
    pub progress: Progress,
    /// Tells the prover what to prove, and what it could.
    pub published: watch::Sender<Lsn>,
    pub proven: watch::Receiver<Option<Lsn>>,
    pub confirmed: watch::Sender<Lsn>,
    pub confirmed_heartbeat: watch::Sender<i64>,
    pub metrics: IngesterMetrics,
    pub vitals: Arc<Vitals>,
    pub tenant: String,
    pub health: Health,
}

/// How often what is old enough is confirmed, and how often an unready epoch is looked at.
const TICK: Duration = Duration::from_millis(250);
/// Pauses between two looks at a transaction that is not visible yet.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Commits taken from the queue at once.
const MOST_AT_ONCE: usize = 10_000;
/// Commits that wait to become visible; with more the pipeline stops, and with it the server.
const MOST_WAITING: usize = 100_000;
/// The longest that PostgreSQL may take to say what is visible.
const PATIENCE: Duration = Duration::from_secs(15);

impl Gate {
    /// Runs until the pipeline or an error ends it, or everything is published and the log handed over to polling.
    ///
    /// `stored` names commits only after the log has them; the snapshot is taken after that.
    pub async fn run(&mut self, mut stored: mpsc::Receiver<Stored>) -> Result<(), GateError> {
        let mut timer = interval(TICK);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pause = SHORTEST_PAUSE;
        loop {
            tokio::select! {
                got = receive(&mut stored, &mut self.waiting), if self.waiting.len() < MOST_WAITING => {
                    if got == 0 {
                        if !self.leave.is_cancelled() {
                            return Err(GateError::Abandoned);
                        }
                        return self.hand_over().await;
                    }
                    pause = SHORTEST_PAUSE;
                }
                () = sleep(pause), if !self.waiting.is_empty() => pause = (pause * 2).min(LONGEST_PAUSE),
                _ = timer.tick() => {
                    self.confirm().await?;
                    self.report();
                    if self.unready_below.is_none() {
                        continue;
                    }
                }
            }
            let (snapshot, clock) = self.snapshot().await?;
            self.pass(&snapshot, clock).await?;
            if self.unready_below.is_some_and(|xid| snapshot.xmin >= xid) {
                let ready = self.link.writer.ready(&self.epoch).await;
                if self.link.outcome(ready).await?.is_none() {
                    continue;
                }
                self.unready_below = None;
            }
        }
    }

    /// Publishes what waits, however long it takes to be visible, and says that the next session polls.
    async fn hand_over(&mut self) -> Result<(), GateError> {
        while !self.waiting.is_empty() {
            let (snapshot, clock) = self.snapshot().await?;
            self.pass(&snapshot, clock).await?;
            sleep(SHORTEST_PAUSE).await;
        }
        self.supply.source = Source::Polling;
        loop {
            let supply = Some(&self.supply);
            let published = self.link.writer.publish(&self.epoch, self.watermark, None, None, supply).await;
            if self.link.outcome(published).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// What PostgreSQL shows now, and its clock.
    async fn snapshot(&mut self) -> Result<(Snapshot, i64), GateError> {
        let sql = format!(
            "SELECT pg_current_snapshot()::text, {}, pg_current_wal_insert_lsn()::text",
            heartbeat::CLOCK
        );
        let row =
            timeout(PATIENCE, self.client.query_one(&sql, &[])).await.map_err(|_| GateError::Silent)??;
        self.vitals.clock(row.get(1), Instant::now());
        let snapshot: Snapshot = row.get::<_, String>(0).parse()?;
        if self.looked.is_none() {
            // Evaluated after the statement's snapshot was taken: every commit that it shows lies below.
            let end = row.get::<_, String>(2).parse().unwrap_or(Lsn::new(u64::MAX));
            self.looked = Some((snapshot.clone(), end));
        }
        Ok((snapshot, row.get(1)))
    }

    /// Publishes the longest prefix of what waits that the snapshot shows.
    async fn pass(&mut self, snapshot: &Snapshot, clock: i64) -> Result<(), GateError> {
        let (told, mut passed) = (Instant::now(), Vec::new());
        let (mut next, mut beat, mut floor, mut beat_at) = (self.watermark, None, None, None);
        let passes = |stored: &mut Stored| match stored {
            Stored::Commit { xid, .. } => snapshot.sees(*xid),
            Stored::Drained(_) => true,
        };
        while let Some(stored) = self.waiting.pop_front_if(passes) {
            match stored {
                Stored::Commit { commit, end, heartbeat, left_out, committed_at, .. } => {
                    passed.push(committed_at);
                    beat_at = heartbeat.map(|_| committed_at).or(beat_at);
                    next = Watermark { commit, end };
                    beat = heartbeat.or(beat);
                    floor = left_out.then_some(commit).or(floor);
                }
                Stored::Drained(end) => next.end = next.end.max(end),
            }
        }
        if next == self.watermark {
            return Ok(());
        }
        let seen = self.looked.take_if(|(_, end)| *end <= next.end).map(|(snapshot, _)| snapshot);
        if let Some(seen) = &seen {
            self.supply.seen = Some(seen.to_string());
        }
        let supply = seen.is_some().then(|| self.supply.clone());
        loop {
            let published = self.link.writer.publish(&self.epoch, next, beat, floor, supply.as_ref()).await;
            if self.link.outcome(published).await?.is_some() {
                break;
            }
        }
        if let Some(floor) = floor {
            tracing::warn!(
                tenant = self.tenant, %floor,
                "a transaction larger than sync.wal.transaction_cap_bytes was left out; every device takes a snapshot"
            );
        }
        if let Some(seen) = seen {
            self.seen.send_replace(Some((seen, next.end)));
        }
        self.published.send_replace(next.end);
        self.watermark = next;
        self.health.moved(Instant::now());
        self.progress.published(Instant::now(), next.end, beat.map(|beat| beat.sequence));
        self.vitals.published(next.end, beat_at, Instant::now());
        for committed_at in passed {
            let until_asked = u64::try_from(clock.saturating_sub(committed_at)).unwrap_or(0);
            self.metrics.published(&self.tenant, Duration::from_micros(until_asked) + told.elapsed());
        }
        Ok(())
    }

    /// Tells how things stand although nothing moves.
    fn report(&mut self) {
        let oldest = self.waiting.iter().find_map(|stored| match stored {
            Stored::Commit { committed_at, .. } => Some(*committed_at),
            Stored::Drained(_) => None,
        });
        let transactions =
            self.waiting.iter().filter(|stored| matches!(stored, Stored::Commit { .. })).count();
        self.vitals.waiting(transactions, oldest, self.unready_below.is_some());
        let now = Instant::now();
        self.health.look(now, &self.vitals.read(now));
    }

    /// Confirms what is proven or old enough. What is only old enough must still be there: Redis may have been away
    /// all the while, and come back without it.
    async fn confirm(&mut self) -> Result<(), GateError> {
        let (now, proven) = (Instant::now(), *self.proven.borrow());
        if let Some(end) = self.progress.due(now).filter(|_| proven.is_none()) {
            let reaches = self.link.writer.reaches(&self.epoch, end).await;
            if self.link.outcome(reaches).await?.is_none() {
                return Ok(());
            }
        }
        let confirmed = self.progress.confirmable(now, proven);
        self.vitals.confirmed(confirmed);
        self.confirmed.send_if_modified(|held| std::mem::replace(held, confirmed) != confirmed);
        self.confirmed_heartbeat.send_replace(self.progress.confirmed_heartbeat());
        Ok(())
    }
}

/// Waits for at least one stored commit, then takes all that are there; 0 when there will be no more.
async fn receive(stored: &mut mpsc::Receiver<Stored>, waiting: &mut VecDeque<Stored>) -> usize {
    let mut fresh = Vec::new();
    let got = stored.recv_many(&mut fresh, MOST_AT_ONCE).await;
    waiting.extend(fresh);
    got
}
