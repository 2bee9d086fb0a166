//! The tables of a tenant in, one commit per look at them out.

use std::{sync::Arc, time::Instant};

use posduif_changelog::{Heartbeat, LogError, Supply, Watermark};
use posduif_model::{Epoch, Lsn, Source};
use tokio::{sync::watch, time::timeout};
use tokio_postgres::Client;

use super::{
    error::{PATIENCE, PollError},
    round::{Ended, Round},
    table::{PolledTable, Which, newer},
};
use crate::{
    appender::Appender, capture, health::Health, heartbeat, lookout::Lookout, metrics::IngesterMetrics,
    pipeline::Limits, progress::Progress, visibility::Snapshot, vitals::Vitals,
};

/// Looks at a tenant's tables and publishes what it finds.
pub struct Poller {
    /// For snapshots; nobody else uses it.
    pub client: Client,
    /// For what is asked beside them.
    pub watching: Arc<Client>,
    pub tables: Vec<PolledTable>,
    pub lookout: Lookout,
    pub appender: Appender,
    pub epoch: Epoch,
    /// The highest position that any entry of the log has: an earlier session may have stored a part of a poll.
    pub top: Lsn,
    pub watermark: Watermark,
    /// Payload bytes stored in this epoch.
    pub written: u64,
    /// What the log has everything of.
    pub seen: Snapshot,
    /// Rows may have changed without being noted: the next look compares all rows, too.
    pub unsure: bool,
    pub limits: Limits,
    /// Payload bytes from which on a poll's rows are left out.
    pub cap: usize,
    pub progress: Progress,
    pub published: watch::Sender<Lsn>,
    pub proven: watch::Receiver<Option<Lsn>>,
    pub confirmed: watch::Sender<Lsn>,
    pub confirmed_heartbeat: watch::Sender<i64>,
    pub told: watch::Sender<Option<(Snapshot, Lsn)>>,
    pub metrics: IngesterMetrics,
    pub vitals: Arc<Vitals>,
    pub health: Health,
    pub tenant: String,
}

/// The position after which a slot takes over, and what must have ended before the last poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub at: Lsn,
    pub xmax: u64,
}

/// A server's clock and newest heartbeat as a snapshot shows them.
pub(super) struct Look {
    pub snapshot: Snapshot,
    /// By PostgreSQL's clock, in microseconds since 2000.
    pub clock: i64,
    pub beat: Option<Heartbeat>,
    pub beat_at: Option<i64>,
    /// Whether the triggers noted anything that `seen` does not show.
    pub news: bool,
}

/// A number above those of all other transactions that have begun.
///
/// Not the `xmax` of a snapshot: that is one above the newest that has ended. A newer one may have written its commit to
/// the WAL and be invisible still, while it waits for the disk or a standby.
pub async fn begun(client: &Client) -> Result<u64, PollError> {
    let row = client.query_one("SELECT pg_current_xact_id()::text", &[]).await?;
    row.get::<_, String>(0).parse().map_err(|_| PollError::Unexpected("which transactions run"))
}

impl Poller {
    /// Looks once, and publishes what is found as a commit.
    pub async fn poll(&mut self) -> Result<(), PollError> {
        let at = self.position().await?;
        let look = timeout(PATIENCE, self.look()).await.map_err(|_| PollError::Silent)??;
        self.check_notes(&look).await?;
        if look.news || self.unsure {
            return self.publish_rows(at, None).await.map(drop);
        }
        // What this snapshot shows was committed below the end of the WAL as of before it.
        self.flush().await?;
        let end = at.max(self.watermark.end);
        self.publish(Watermark { end, ..self.watermark }, look, None, Source::Polling, None).await
    }

    /// The last poll, after everything has ended that ran when `turn` was noted: the WAL's commits above it go on from there.
    ///
    /// `false`: a table is locked; nothing was published.
    pub async fn turn(&mut self, turn: Turn) -> Result<bool, PollError> {
        self.publish_rows(turn.at, Some(turn)).await
    }

    /// Where the WAL ends now, above everything that is published, and which transactions have begun by then.
    pub async fn note(&mut self) -> Result<Turn, PollError> {
        let at = self.position().await?;
        let xmax = timeout(PATIENCE, begun(&self.client)).await.map_err(|_| PollError::Silent)??;
        Ok(Turn { at, xmax })
    }

    /// What new snapshots show.
    pub async fn snapshot(&self) -> Result<Snapshot, PollError> {
        let ask = self.client.query_one("SELECT pg_current_snapshot()::text", &[]);
        let row = timeout(PATIENCE, ask).await.map_err(|_| PollError::Silent)??;
        Ok(row.get::<_, String>(0).parse()?)
    }

    /// How long ago things moved, and what may be forgotten by now.
    pub async fn tick(&mut self) -> Result<(), LogError> {
        let (now, proven) = (Instant::now(), *self.proven.borrow());
        if let Some(end) = self.progress.due(now).filter(|_| proven.is_none()) {
            let reaches = self.appender.link.writer.reaches(&self.epoch, end).await;
            if self.appender.link.outcome(reaches).await?.is_none() {
                return Ok(());
            }
        }
        let confirmed = self.progress.confirmable(now, proven);
        self.vitals.confirmed(confirmed);
        self.confirmed.send_replace(confirmed);
        self.confirmed_heartbeat.send_replace(self.progress.confirmed_heartbeat());
        self.health.look(now, &self.vitals.read(now));
        Ok(())
    }

    /// The end of the WAL, above the newest commit of the log: what another snapshot shows gets a position of its own.
    async fn position(&self) -> Result<Lsn, PollError> {
        loop {
            let ask = self.client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]);
            let row = timeout(PATIENCE, ask).await.map_err(|_| PollError::Silent)??;
            let end: Lsn =
                row.get::<_, String>(0).parse().map_err(|_| PollError::Unexpected("where its WAL ends"))?;
            if end > self.appender.stored.max(self.top) {
                return Ok(end);
            }
            let move_on = "SELECT pg_logical_emit_message(false, 'posduif.poll', '')";
            self.client.query_one(move_on, &[]).await?;
        }
    }

    async fn look(&self) -> Result<Look, PollError> {
        let sql = format!(
            "SELECT pg_current_snapshot()::text, {}, b.sequence, b.nonce,
                    (extract(epoch FROM b.beat_at) * 1000000)::bigint - 946684800000000,
                    EXISTS (SELECT FROM posduif_engine.captured WHERE {})
               FROM (SELECT) one
               LEFT JOIN (SELECT * FROM posduif_engine.heartbeat ORDER BY sequence DESC LIMIT 1) b ON true",
            heartbeat::CLOCK,
            newer("xid", &self.seen)
        );
        let row = self.client.query_one(&sql, &[]).await?;
        let (sequence, nonce): (Option<i64>, Option<i64>) = (row.get(2), row.get(3));
        let beat = sequence.zip(nonce).map(|(sequence, nonce)| Heartbeat { sequence, nonce });
        let (snapshot, clock) = (row.get::<_, String>(0).parse()?, row.get(1));
        self.vitals.clock(clock, Instant::now());
        Ok(Look { snapshot, clock, beat, beat_at: row.get(4), news: row.get(5) })
    }

    /// That everything was noted until this look: `posduif migrate` makes triggers anew, and those of changes off.
    async fn check_notes(&self, look: &Look) -> Result<(), PollError> {
        let standing = capture::standing(&self.watching, &self.lookout.rules);
        let standing = timeout(PATIENCE, standing).await.map_err(|_| PollError::Silent)??;
        match standing.is_some_and(|standing| standing.notes_all_since(&look.snapshot)) {
            true => Ok(()),
            false => Err(PollError::Unnoted),
        }
    }

    /// Returns once everything that a snapshot of this connection has shown so far is on PostgreSQL's disk.
    async fn flush(&self) -> Result<(), PollError> {
        let sql = "SELECT CASE WHEN pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()
                               THEN pg_logical_emit_message(false, 'posduif.poll', '', true) END";
        timeout(PATIENCE, self.watching.query_one(sql, &[])).await.map_err(|_| PollError::Silent)??;
        Ok(())
    }

    async fn publish_rows(&mut self, at: Lsn, turn: Option<Turn>) -> Result<bool, PollError> {
        if !self.begin().await? {
            return Ok(false);
        }
        self.top = at;
        let outcome = self.read_rows(at, turn).await;
        // Also after an error: the connection may be used again.
        self.client.batch_execute("ROLLBACK").await?;
        let (look, left_out, end) = outcome?;
        let (source, polled) = match turn {
            Some(_) => (Source::Wal, Some((end, look.snapshot.to_string()))),
            None => (Source::Polling, None),
        };
        let (floor, next) = (left_out.then_some(at), Watermark { commit: at, end: at });
        if left_out {
            tracing::warn!(
                tenant = self.tenant, floor = %at,
                "a poll found more than sync.wal.transaction_cap_bytes and left it out; every device takes a snapshot"
            );
        }
        self.publish(next, look, floor, source, polled).await?;
        self.unsure = false;
        Ok(true)
    }

    /// Begins a snapshot between two writers that lock a table for themselves; `false`: not now.
    ///
    /// The locks come before the snapshot: in one that is older than a TRUNCATE or a rewrite, the table would be empty.
    async fn begin(&self) -> Result<bool, PollError> {
        let names: Vec<String> = self.tables.iter().map(|table| table.name().to_sql()).collect();
        let lock = match names.is_empty() {
            true => String::new(),
            false => format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", ")),
        };
        let sql =
            format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '2s'; {lock}");
        match self.client.batch_execute(&sql).await {
            Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE) => {
                tracing::warn!(tenant = self.tenant, "a table is locked; polling it later");
                self.client.batch_execute("ROLLBACK").await?;
                Ok(false)
            }
            begun => Ok(begun.map(|()| true)?),
        }
    }

    /// Stores what changed; gives what it saw, whether that was too much, and where the WAL ended when it had been seen.
    async fn read_rows(&mut self, at: Lsn, turn: Option<Turn>) -> Result<(Look, bool, Lsn), PollError> {
        let look = timeout(PATIENCE, self.look()).await.map_err(|_| PollError::Silent)??;
        self.check_notes(&look).await?;
        if turn.is_some_and(|turn| look.snapshot.xmin < turn.xmax) {
            return Err(PollError::Unexpected("which transactions run"));
        }
        let row = self.client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?;
        let end: Lsn =
            row.get::<_, String>(0).parse().map_err(|_| PollError::Unexpected("where its WAL ends"))?;
        self.lookout.check(&self.watching).await?;
        // Readers shall never have what a crash of PostgreSQL takes back, nor a position that its disk does not reach.
        let ask =
            self.watching.query_one("SELECT pg_logical_emit_message(false, 'posduif.poll', '', true)", &[]);
        timeout(PATIENCE, ask).await.map_err(|_| PollError::Silent)??;
        let mut round = Round::new(at, self.appender.stored, self.written, self.cap, self.limits);
        let unknown = self.truncates(&mut round).await?;
        if let Some(table) = unknown {
            let error = PollError::Unknown(table);
            self.appender.link.writer.give_up(&self.epoch, &error.to_string()).await?;
            return Err(error);
        }
        for which in [Which::Newer, Which::Noted] {
            if which == Which::Newer && !self.unsure {
                continue;
            }
            for table in &self.tables {
                round.rows(&self.client, table, which, &self.seen, &mut self.appender).await?;
            }
        }
        let Ended { tally, left_out, written, rows_left_out } =
            round.finish(&look, &self.tables, &mut self.appender).await?;
        self.written = written;
        for rows in &rows_left_out {
            rows.report(&self.metrics, &self.tenant, at);
        }
        if self.metrics.transaction(&self.tenant, &tally, left_out) {
            self.vitals.changes(Instant::now());
        }
        Ok((look, left_out, end))
    }

    /// Tables that were truncated go into the round; the name of one is given of which nobody knows what changed.
    async fn truncates(&mut self, round: &mut Round) -> Result<Option<String>, PollError> {
        let sql = format!(
            "SELECT DISTINCT table_name, kind::text FROM posduif_engine.captured WHERE kind <> 'r' AND {}",
            newer("xid", &self.seen)
        );
        for row in self.client.query(&sql, &[]).await? {
            let (name, kind): (String, String) = (row.get(0), row.get(1));
            match self.tables.iter().find(|table| table.name().to_string() == name) {
                Some(table) if kind == "t" => round.truncated(table, &mut self.appender),
                Some(_) => return Ok(Some(name)),
                None => {}
            }
        }
        Ok(None)
    }

    async fn publish(
        &mut self,
        next: Watermark,
        look: Look,
        floor: Option<Lsn>,
        source: Source,
        polled: Option<(Lsn, String)>,
    ) -> Result<(), PollError> {
        let supply = Supply { source, seen: Some(look.snapshot.to_string()), polled };
        loop {
            let writer = &mut self.appender.link.writer;
            let published = writer.publish(&self.epoch, next, look.beat, floor, Some(&supply)).await;
            if self.appender.link.outcome(published).await?.is_some() {
                break;
            }
        }
        let now = Instant::now();
        self.watermark = next;
        self.seen = look.snapshot.clone();
        self.published.send_replace(next.end);
        self.told.send_replace(Some((look.snapshot, next.end)));
        self.health.moved(now);
        self.progress.published(now, next.end, look.beat.map(|beat| beat.sequence));
        self.vitals.published(next.end, look.beat_at, now);
        Ok(())
    }
}
