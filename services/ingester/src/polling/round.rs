//! The rows that one poll finds in, the entries of one commit in the log out.

use std::collections::BTreeSet;

use posduif_changelog::CommitRecord;
use posduif_model::{Bucket, Change, DeviceId, Lsn, Position};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{
    error::PollError,
    poller::Look,
    table::{PolledTable, Which},
};
use crate::{
    appender::Appender,
    pipeline::{Limits, MOST_ENTRIES},
    tally::{Count, Kind, Tally},
    transaction::{AllLeftOut, LeftOut},
    visibility::Snapshot,
};

/// Rows asked for at once, as many as these bytes of the last ones' size.
const STEP: usize = 500;
const FIRST: usize = 50;
const STEP_BYTES: usize = 4 << 20;

/// One commit while it is gathered.
pub(super) struct Round {
    at: Lsn,
    previous: Lsn,
    ordinal: u64,
    /// Payload bytes of this commit, and of the epoch before it.
    bytes: usize,
    before: u64,
    cap: usize,
    limits: Limits,
    buckets: BTreeSet<Bucket>,
    tally: Tally,
    rows_left_out: AllLeftOut,
}

/// A commit that is stored.
pub(super) struct Ended {
    pub(super) tally: Vec<Count>,
    /// It was larger than the cap.
    pub(super) left_out: bool,
    /// Payload bytes of the epoch with it.
    pub(super) written: u64,
    pub(super) rows_left_out: Vec<LeftOut>,
}

impl Round {
    pub(super) fn new(at: Lsn, previous: Lsn, before: u64, cap: usize, limits: Limits) -> Self {
        let (buckets, tally, rows_left_out) = (BTreeSet::new(), Tally::default(), AllLeftOut::default());
        Round { at, previous, ordinal: 0, bytes: 0, before, cap, limits, buckets, tally, rows_left_out }
    }

    fn is_over_cap(&self) -> bool {
        self.bytes > self.cap
    }

    /// A table lost all rows that it had before; those that it has now follow.
    pub(super) fn truncated(&mut self, table: &PolledTable, appender: &mut Appender) {
        self.tally.count(table.oid, Kind::Truncate);
        self.push(Bucket::Shared, None, &[table.synced.emptied()], appender);
        self.ordinal += 1;
    }

    /// The rows of a table that a snapshot does not show as they are now.
    pub(super) async fn rows(
        &mut self,
        client: &Client,
        table: &PolledTable,
        which: Which,
        since: &Snapshot,
        appender: &mut Appender,
    ) -> Result<(), PollError> {
        let declare = format!("DECLARE posduif_poll NO SCROLL CURSOR FOR {}", table.query(which, since));
        // The simple protocol answers in the types' text output form, which is what the log has.
        client.batch_execute(&declare).await?;
        let mut step = FIRST;
        loop {
            let answer = client.simple_query(&format!("FETCH {step} FROM posduif_poll")).await?;
            let (mut count, mut bytes) = (0, 0);
            for message in &answer {
                let SimpleQueryMessage::Row(row) = message else { continue };
                count += 1;
                let values = (0..table.width()).map(|place| row.try_get(place));
                let values: Vec<Option<&str>> = values.collect::<Result<_, _>>()?;
                bytes += values.iter().flatten().map(|value| value.len()).sum::<usize>();
                self.row(table, &values, appender)?;
                if appender.batch.bytes() >= self.limits.bytes || appender.batch.commands() >= MOST_ENTRIES {
                    appender.append(Some(self.at)).await?;
                }
            }
            if count < step || self.is_over_cap() {
                return Ok(client.batch_execute("CLOSE posduif_poll").await?);
            }
            step = (STEP_BYTES / (bytes / step).max(1)).clamp(1, STEP);
        }
    }

    fn row(
        &mut self,
        table: &PolledTable,
        values: &[Option<&str>],
        appender: &mut Appender,
    ) -> Result<(), PollError> {
        let answer = table.answer(values).ok_or(PollError::Unexpected("for rows"))?;
        let kind = if answer.now.is_some() { Kind::Update } else { Kind::Delete };
        self.tally.count(table.oid, kind);
        self.ordinal += 1;
        if self.is_over_cap() {
            return Ok(());
        }
        let before = answer.before(&table.synced);
        let routed = table.synced.polled(answer.now.as_deref(), &answer.noted, &before);
        let routed = routed.map_err(|source| PollError::Row { table: table.name().clone(), source })?;
        if let Some(why) = routed.left_out {
            self.rows_left_out.add(table.name(), why);
        }
        let origin: Option<DeviceId> = answer.origin.and_then(|device| device.parse().ok());
        for (bucket, changes) in routed.entries {
            self.push(bucket, origin.as_ref(), &changes, appender);
        }
        Ok(())
    }

    fn push(
        &mut self,
        bucket: Bucket,
        origin: Option<&DeviceId>,
        changes: &[Change],
        appender: &mut Appender,
    ) {
        let at = Position { commit: self.at, ordinal: self.ordinal };
        self.bytes += appender.batch.push(at, &bucket, origin, changes);
        self.buckets.insert(bucket);
    }

    /// Ends the commit.
    pub(super) async fn finish(
        self,
        look: &Look,
        tables: &[PolledTable],
        appender: &mut Appender,
    ) -> Result<Ended, PollError> {
        let left_out = self.is_over_cap();
        let written = self.before + u64::try_from(self.bytes).unwrap_or(u64::MAX);
        // It is visible by its nature, so it is noted as the newest transaction that has ended for everybody.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "pgoutput names transactions by the low 32 bits, too"
        )]
        let xid = look.snapshot.xmin.saturating_sub(1) as u32;
        appender.batch.commit(CommitRecord {
            commit: self.at,
            end: self.at,
            previous: self.previous,
            xid,
            changes: self.ordinal,
            committed_at: look.clock,
            origin: None,
            buckets: self.buckets.into_iter().collect(),
            buckets_elsewhere: false,
            written,
            left_out,
            seen: Some(look.snapshot.to_string()),
        });
        appender.append(Some(self.at)).await?;
        appender.stored = self.at;
        let name = |oid: u32| {
            let table = tables.iter().find(|table| table.oid == oid)?;
            Some(table.name().clone())
        };
        let (tally, rows_left_out) = (self.tally.by_table(name), self.rows_left_out.into_list());
        Ok(Ended { tally, left_out, written, rows_left_out })
    }
}
