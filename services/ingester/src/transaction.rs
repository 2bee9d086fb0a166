//! pgoutput messages in, entries and commits for the log out; no I/O.

use std::collections::{BTreeMap, BTreeSet};

use posduif_changelog::{Batch, CommitRecord, Heartbeat};
use posduif_model::{
    Bucket, Change, DeviceId, Lsn, Position, TableName, row::TooLarge, rule::RuleSet, value::Datum,
};

use crate::{
    catalog::Catalog,
    decode::{Begin, Commit, DecodeError, Message, decode},
    metrics::IngesterMetrics,
    relations::{Plan, Relations, SyncedTable},
    route::{RouteError, Routed},
    tally::{Count, Kind, Tally},
    visibility::Snapshot,
};

/// A stream that cannot be followed any further.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("a replication message cannot be decoded: {0}")]
    Decode(#[from] DecodeError),
    #[error("a row of {table} cannot be synced: {source}")]
    Row { table: TableName, source: RouteError },
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
    /// The rows that nobody sees because they are too large.
    pub rows_left_out: Vec<LeftOut>,
}

/// Rows of one table in one transaction that are too large for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub table: TableName,
    /// A constant word.
    pub reason: &'static str,
    pub rows: u64,
    /// The size of the largest.
    pub bytes: usize,
}

/// Those of one commit, by table and reason.
#[derive(Debug, Default)]
pub struct AllLeftOut(BTreeMap<(TableName, &'static str), LeftOut>);

impl AllLeftOut {
    pub fn add(&mut self, table: &TableName, why: TooLarge) {
        let reason = why.reason();
        let left_out = self.0.entry((table.clone(), reason)).or_insert_with(|| LeftOut {
            table: table.clone(),
            reason,
            rows: 0,
            bytes: 0,
        });
        left_out.rows += 1;
        left_out.bytes = left_out.bytes.max(why.bytes());
    }

    pub fn into_list(self) -> Vec<LeftOut> {
        self.0.into_values().collect()
    }
}

impl LeftOut {
    /// Tells of rows that nobody sees; never their values, not even a key.
    pub fn report(&self, metrics: &IngesterMetrics, tenant: &str, commit: Lsn) {
        let LeftOut { table, reason, rows, bytes } = self;
        metrics.rows_left_out.with_label_values(&[tenant, &table.to_string(), reason]).inc_by(*rows);
        tracing::warn!(
            tenant, %table, reason, rows, largest_bytes = bytes, %commit,
            "rows are too large to be synced and are seen by nobody; raise sync.max_row_bytes or make them smaller"
        );
    }
}

/// Where the log ends that an assembler goes on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The newest commit that the log has; what comes again at or below it is skipped.
    pub newest: Lsn,
    /// Payload bytes stored in this epoch up to there.
    pub written: u64,
    /// What a poll has published, of the commits below this position.
    pub polled: Option<(Lsn, Snapshot)>,
}

impl LogEnd {
    /// Whether the log has that transaction's changes.
    fn has(&self, begin: &Begin) -> bool {
        let polled = |(below, snapshot): &(Lsn, Snapshot)| begin.commit < *below && snapshot.sees(begin.xid);
        begin.commit <= self.newest || self.polled.as_ref().is_some_and(polled)
    }
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
    over_cap: bool,
    rows_left_out: AllLeftOut,
}

/// The prefix of the message with which an upload names its device.
const ORIGIN: &str = "posduif.origin";
const UNSEEN: &str = "a row whose table nobody looked at";

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

    /// The transaction whose next message is one of rows in a shape that nobody has compared with the catalogue.
    ///
    /// Between the look that the session began with and these rows the table may have been altered; the transaction
    /// itself may have done it.
    pub fn must_look(&self, next: &[u8]) -> Option<u32> {
        let open = self.open.as_ref().filter(|open| !open.known)?;
        let rows = matches!(next.first(), Some(b'I' | b'U' | b'D' | b'T'));
        (rows && self.relations.in_doubt()).then_some(open.begin.xid)
    }

    /// Takes the catalogue as it was seen by a look that saw that transaction.
    pub fn looked(&mut self, catalog: Catalog) {
        self.catalog = catalog;
        self.relations.settle(&self.rules, &self.catalog);
    }

    /// Follows one message: rows go into the batch, a commit ends their transaction there.
    pub fn follow(&mut self, bytes: &[u8], batch: &mut Batch) -> Result<Option<Finished>, StreamError> {
        match decode(bytes)? {
            Message::Begin(begin) => self.begin(begin)?,
            Message::Commit(commit) => return self.commit(commit, batch),
            Message::Relation(relation) => {
                let stored = self.open.as_ref().is_some_and(|open| open.known);
                self.relations.describe(relation, stored, &self.rules, &self.catalog);
            }
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
        let known = self.end.has(&begin);
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
            over_cap: false,
            rows_left_out: AllLeftOut::default(),
        });
        Ok(())
    }

    fn row(
        &mut self,
        relation: u32,
        batch: &mut Batch,
        route: impl FnOnce(&SyncedTable) -> Result<Routed, RouteError>,
        inserted: Option<&[Datum<'_>]>,
    ) -> Result<(), StreamError> {
        let Assembler { relations, open, cap, .. } = self;
        let open = open.as_mut().ok_or(StreamError::Order("a row outside a transaction"))?;
        relations.turn_to_rows();
        let at = Position { commit: open.begin.commit, ordinal: open.ordinal };
        open.ordinal += 1;
        if !open.is_stored() {
            return Ok(());
        }
        if relations.in_doubt() {
            return Err(StreamError::Order(UNSEEN));
        }
        let plan = relations.plan(relation).ok_or(StreamError::Order("a row before its table's shape"))?;
        match plan {
            Plan::Synced(table) => {
                let routed =
                    route(table).map_err(|source| StreamError::Row { table: table.table.clone(), source })?;
                if let Some(why) = routed.left_out {
                    open.rows_left_out.add(&table.table, why);
                }
                for (bucket, changes) in routed.entries {
                    open.push(at, bucket, &changes, batch);
                }
                open.over_cap = open.bytes > *cap;
            }
            Plan::Heartbeat { sequence, nonce } => {
                if let Some(row) = inserted {
                    open.heartbeat = heartbeat(row, *sequence, *nonce);
                }
            }
            Plan::Broken { table, problem } => return Err(broken(table, problem)),
            Plan::Ignored => {}
        }
        Ok(())
    }

    /// All tables of one TRUNCATE are one entry.
    fn truncate(&mut self, relations: &[u32], batch: &mut Batch) -> Result<(), StreamError> {
        let Assembler { relations: known, open, .. } = self;
        let open = open.as_mut().ok_or(StreamError::Order("a truncate outside a transaction"))?;
        let at = Position { commit: open.begin.commit, ordinal: open.ordinal };
        open.ordinal += 1;
        relations.iter().for_each(|relation| open.tally.count(*relation, Kind::Truncate));
        known.turn_to_rows();
        if !open.is_stored() {
            return Ok(());
        }
        if known.in_doubt() {
            return Err(StreamError::Order(UNSEEN));
        }
        let mut emptied = Vec::new();
        for relation in relations {
            let plan =
                known.plan(*relation).ok_or(StreamError::Order("a truncate before its table's shape"))?;
            match plan {
                Plan::Synced(table) => emptied.push(table.emptied()),
                Plan::Broken { table, problem } => return Err(broken(table, problem)),
                Plan::Heartbeat { .. } | Plan::Ignored => {}
            }
        }
        if !emptied.is_empty() {
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
            left_out: open.over_cap,
            seen: None,
        });
        self.end.newest = commit.commit;
        Ok(Some(Finished {
            commit: commit.commit,
            end: commit.end,
            xid: open.begin.xid,
            tally: open.tally.by_table(|relation| self.relations.declared(relation)),
            committed_at: commit.committed_at,
            heartbeat: open.heartbeat,
            left_out: open.over_cap,
            rows_left_out: open.rows_left_out.into_list(),
        }))
    }
}

impl Open {
    /// Whether its rows go into the log.
    fn is_stored(&self) -> bool {
        !self.known && !self.over_cap
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
