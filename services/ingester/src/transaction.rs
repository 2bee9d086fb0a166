//! pgoutput messages in, entries and commits for the log out; no I/O.

use std::collections::BTreeSet;

use posduif_changelog::{Batch, CommitRecord, Heartbeat};
use posduif_model::{
    Bucket, Change, DeviceId, Lsn, Position, TableName, row::RowError, rule::RuleSet, value::Datum,
};

use crate::{
    catalog::Catalog,
    decode::{Begin, Commit, DecodeError, Message, decode},
    relations::{Plan, Relations, SyncedTable},
    route::Routed,
    tally::{Count, Kind, Tally},
};

/// A stream that cannot be followed any further.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("a replication message cannot be decoded: {0}")]
    Decode(#[from] DecodeError),
    #[error("a row of {table} cannot be synced: {source}")]
    Row { table: TableName, source: RowError },
    #[error("rows of {table} cannot be synced: {problem}")]
    Table { table: TableName, problem: String },
    #[error("replication messages came out of order: {0}")]
    Order(&'static str),
}

/// A transaction that is complete in the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub commit: Lsn,
    pub end: Lsn,
    pub xid: u32,
    /// Its row messages by table.
    pub tally: Vec<Count>,
    pub committed_at: i64,
    pub heartbeat: Option<Heartbeat>,
    /// Larger than the cap: its rows are not in the log.
    pub left_out: bool,
}

/// Where the log ends that an assembler goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The newest commit that the log has; what comes again at or below it is skipped.
    pub newest: Lsn,
    /// Payload bytes stored in this epoch up to there.
    pub written: u64,
}

/// Follows the stream from transaction to transaction.
#[derive(Debug)]
pub struct Assembler {
    rules: RuleSet,
    catalog: Catalog,
    relations: Relations,
    end: LogEnd,
    /// Payload bytes from which on a transaction is left out.
    cap: usize,
    /// The first transaction that the log does not have whole; an earlier attempt may have left a part of it.
    first_new: Option<Lsn>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    begin: Begin,
    /// Already in the log: its messages are read, none is written.
    known: bool,
    ordinal: u64,
    tally: Tally,
    origin: Option<DeviceId>,
    heartbeat: Option<Heartbeat>,
    buckets: BTreeSet<Bucket>,
    /// Payload bytes that went into the log.
    bytes: usize,
    left_out: bool,
}

/// The prefix of the message with which an upload names its device.
const ORIGIN: &str = "posduif.origin";

impl Assembler {
    pub fn new(rules: RuleSet, catalog: Catalog, end: LogEnd, cap: usize) -> Self {
        let relations = Relations::default();
        Assembler { rules, catalog, relations, end, cap, first_new: None, open: None }
    }

    /// Whether the stream stands between two transactions.
    pub fn is_idle(&self) -> bool {
        self.open.is_none()
    }

    /// The one transaction of which the log may hold a part already.
    pub fn first_new(&self) -> Option<Lsn> {
        self.first_new
    }

    /// Follows one message: rows go into the batch, a commit ends their transaction there.
    pub fn follow(&mut self, bytes: &[u8], batch: &mut Batch) -> Result<Option<Finished>, StreamError> {
        match decode(bytes)? {
            Message::Begin(begin) => self.begin(begin)?,
            Message::Commit(commit) => return self.commit(commit, batch),
            Message::Relation(relation) => self.relations.describe(&relation, &self.rules, &self.catalog),
            Message::Message(message) if message.transactional && message.prefix == ORIGIN => {
                let device = std::str::from_utf8(message.content).ok().and_then(|text| text.parse().ok());
                self.open()?.origin = device;
            }
            Message::Insert(insert) => {
                self.open()?.tally.count(insert.relation, Kind::Insert);
                self.row(insert.relation, batch, |table| table.insert(&insert.new), Some(&insert.new))?;
            }
            Message::Update(update) => {
                self.open()?.tally.count(update.relation, Kind::Update);
                self.row(
                    update.relation,
                    batch,
                    |table| table.update(update.old.as_ref(), &update.new),
                    None,
                )?;
            }
            Message::Delete(delete) => {
                self.open()?.tally.count(delete.relation, Kind::Delete);
                self.row(delete.relation, batch, |table| table.delete(&delete.old), None)?;
            }
            Message::Truncate(truncate) => self.truncate(&truncate.relations, batch)?,
            Message::Message(_) | Message::Origin(_) | Message::Type(_) => {}
        }
        Ok(None)
    }

    fn open(&mut self) -> Result<&mut Open, StreamError> {
        self.open.as_mut().ok_or(StreamError::Order("a change outside a transaction"))
    }

    fn begin(&mut self, begin: Begin) -> Result<(), StreamError> {
        if self.open.is_some() {
            return Err(StreamError::Order("a transaction inside another"));
        }
        let known = begin.commit <= self.end.newest;
        if !known {
            self.first_new.get_or_insert(begin.commit);
        }
        self.open = Some(Open {
            begin,
            known,
            ordinal: 0,
            tally: Tally::default(),
            origin: None,
            heartbeat: None,
            buckets: BTreeSet::new(),
            bytes: 0,
            left_out: false,
        });
        Ok(())
    }

    fn row(
        &mut self,
        relation: u32,
        batch: &mut Batch,
        route: impl FnOnce(&SyncedTable) -> Result<Routed, RowError>,
        inserted: Option<&[Datum<'_>]>,
    ) -> Result<(), StreamError> {
        let Assembler { relations, open, cap, .. } = self;
        let open = open.as_mut().ok_or(StreamError::Order("a row outside a transaction"))?;
        let plan = relations.plan(relation).ok_or(StreamError::Order("a row before its table's shape"))?;
        let at = Position { commit: open.begin.commit, ordinal: open.ordinal };
        open.ordinal += 1;
        match plan {
            Plan::Synced(table) if open.is_stored() => {
                let routed =
                    route(table).map_err(|source| StreamError::Row { table: table.table.clone(), source })?;
                for (bucket, changes) in routed {
                    open.push(at, bucket, &changes, batch);
                }
                open.left_out = open.bytes > *cap;
            }
            Plan::Heartbeat { sequence, nonce } => {
                if let Some(row) = inserted {
                    open.heartbeat = heartbeat(row, *sequence, *nonce);
                }
            }
            Plan::Broken { table, problem } if open.is_stored() => return Err(broken(table, problem)),
            Plan::Synced(_) | Plan::Ignored | Plan::Broken { .. } => {}
        }
        Ok(())
    }

    /// All tables of one TRUNCATE are one entry.
    fn truncate(&mut self, relations: &[u32], batch: &mut Batch) -> Result<(), StreamError> {
        let Assembler { relations: known, open, .. } = self;
        let open = open.as_mut().ok_or(StreamError::Order("a truncate outside a transaction"))?;
        let at = Position { commit: open.begin.commit, ordinal: open.ordinal };
        open.ordinal += 1;
        let mut emptied = Vec::new();
        for relation in relations {
            open.tally.count(*relation, Kind::Truncate);
            let plan =
                known.plan(*relation).ok_or(StreamError::Order("a truncate before its table's shape"))?;
            match plan {
                Plan::Synced(table) => emptied.push(table.emptied()),
                Plan::Broken { table, problem } if open.is_stored() => return Err(broken(table, problem)),
                Plan::Heartbeat { .. } | Plan::Ignored | Plan::Broken { .. } => {}
            }
        }
        if open.is_stored() && !emptied.is_empty() {
            open.push(at, Bucket::Shared, &emptied, batch);
        }
        Ok(())
    }

    fn commit(&mut self, commit: Commit, batch: &mut Batch) -> Result<Option<Finished>, StreamError> {
        let open = self.open.take().ok_or(StreamError::Order("a commit without its begin"))?;
        if commit.commit != open.begin.commit {
            return Err(StreamError::Order("a commit of another transaction"));
        }
        if open.known {
            return Ok(None);
        }
        self.end.written += u64::try_from(open.bytes).unwrap_or(u64::MAX);
        batch.commit(CommitRecord {
            commit: commit.commit,
            end: commit.end,
            previous: self.end.newest,
            xid: open.begin.xid,
            changes: open.ordinal,
            committed_at: commit.committed_at,
            origin: open.origin,
            buckets: open.buckets.into_iter().collect(),
            buckets_elsewhere: false,
            written: self.end.written,
            left_out: open.left_out,
        });
        self.end.newest = commit.commit;
        Ok(Some(Finished {
            commit: commit.commit,
            end: commit.end,
            xid: open.begin.xid,
            tally: open.tally.by_table(|relation| self.relations.declared(relation)),
            committed_at: commit.committed_at,
            heartbeat: open.heartbeat,
            left_out: open.left_out,
        }))
    }
}

impl Open {
    /// Whether its rows go into the log.
    fn is_stored(&self) -> bool {
        !self.known && !self.left_out
    }

    fn push(&mut self, at: Position, bucket: Bucket, changes: &[Change], batch: &mut Batch) {
        self.bytes += batch.push(at, &bucket, self.origin.as_ref(), changes);
        self.buckets.insert(bucket);
    }
}

fn broken(table: &TableName, problem: &str) -> StreamError {
    StreamError::Table { table: table.clone(), problem: problem.to_owned() }
}

fn heartbeat(row: &[Datum<'_>], sequence: usize, nonce: usize) -> Option<Heartbeat> {
    let number = |place: usize| match row.get(place) {
        Some(Datum::Text(text)) => text.parse().ok(),
        _ => None,
    };
    Some(Heartbeat { sequence: number(sequence)?, nonce: number(nonce)? })
}
