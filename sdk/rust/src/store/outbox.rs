//! `posduif_outbox`: local writes that the server has not shown back, and `posduif_rejected`: those it refused.

use rusqlite::{Connection, Row, types::Type};

use super::{
    Store,
    hold::{receipt, release},
    state, upload,
};
use crate::{
    error::Result,
    receipt::{Outcome, Refusal},
    table::Table,
    upload::{Entry, EntryOp},
};

/// The bytes of row JSON in one upload, unless a single row is larger.
const UPLOAD_BYTES: usize = 256 * 1024;

impl Store {
    /// The oldest pending entry younger than `after`.
    pub fn first_pending(&self, after: i64) -> Result<Option<i64>> {
        Ok(pending(&self.conn, after, 1)?.first().map(|entry| entry.seq))
    }

    /// Writes down what became of an upload. Only what is still pending changes.
    pub fn record(&mut self, outcome: &Outcome) -> Result<()> {
        let tables = self.tables()?;
        self.write(|tx| record(tx, &tables, outcome))
    }
}

/// The oldest pending entries younger than `after`: at most `limit`, bounded in bytes, at least one if any.
pub(super) fn pending(conn: &Connection, after: i64, limit: usize) -> Result<Vec<Entry>> {
    let mut statement = conn.prepare_cached(
        r#"SELECT seq, "table", op, key, row FROM posduif_outbox
           WHERE state = 'pending' AND seq > ?1 ORDER BY seq LIMIT ?2"#,
    )?;
    let mut entries = Vec::new();
    let mut bytes = 0;
    for entry in statement.query_map((after, i64::try_from(limit).unwrap_or(i64::MAX)), entry)? {
        let entry = entry?;
        bytes += entry.key.len() + entry.row.as_ref().map_or(0, Vec::len);
        if bytes > UPLOAD_BYTES && !entries.is_empty() {
            break;
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// How many entries wait for their upload, and the youngest of them.
pub(crate) fn waiting(conn: &Connection) -> Result<(u32, Option<i64>)> {
    let sql = "SELECT count(*), max(seq) FROM posduif_outbox WHERE state = 'pending'";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// The same within a transaction. The upload that is answered hereby need not be repeated.
pub(super) fn record(tx: &Connection, tables: &[Table], outcome: &Outcome) -> Result<()> {
    upload::forget(tx)?;
    let mut sent = tx.prepare_cached(
        "UPDATE posduif_outbox SET state = 'sent', receipt = ?2 WHERE seq = ?1 AND state = 'pending'",
    )?;
    for seq in &outcome.sent {
        sent.execute((seq, receipt(outcome.lsn)))?;
    }
    for seq in &outcome.superseded {
        list_rejected(tx, *seq, "CONFLICT", "the server has a newer version")?;
    }
    if outcome.rejected.is_empty() {
        return Ok(());
    }
    for refusal in &outcome.rejected {
        give_up(tx, refusal)?;
        if refusal.code == "FORBIDDEN" {
            // The triggers let a write pass that the server does not: what is granted has changed.
            state::set(tx, "stale", 1)?;
        }
    }
    state::set(tx, "applying", 1)?;
    release(tx, tables)?;
    state::set(tx, "applying", 0)
}

/// Moves the entries of a refused item out of the outbox.
fn give_up(tx: &Connection, refusal: &Refusal) -> Result<()> {
    for seq in &refusal.seqs {
        list_rejected(tx, *seq, &refusal.code, &refusal.error)?;
        tx.execute("DELETE FROM posduif_outbox WHERE seq = ?1", [seq])?;
    }
    Ok(())
}

/// Copies an entry to the list of those that had no effect at the server.
pub(super) fn list_rejected(tx: &Connection, seq: i64, code: &str, error: &str) -> Result<()> {
    tx.execute(
        r#"INSERT OR REPLACE INTO posduif_rejected (seq, "table", op, key, row, code, error)
           SELECT seq, "table", op, key, row, ?2, ?3 FROM posduif_outbox WHERE seq = ?1"#,
        (seq, code, error),
    )?;
    Ok(())
}

/// Key and row as bytes: they hold what the application wrote, and SQLite's text need not be UTF-8.
fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let op = match row.get_ref(2)?.as_str()? {
        "put" => EntryOp::Put,
        "delete" => EntryOp::Delete,
        "read" => EntryOp::Read,
        other => {
            return Err(rusqlite::Error::FromSqlConversionFailure(
                2,
                Type::Text,
                format!("unknown outbox operation {other}").into(),
            ));
        }
    };
    let bytes = |place| Ok::<_, rusqlite::Error>(row.get_ref(place)?.as_bytes_or_null()?.map(<[u8]>::to_vec));
    Ok(Entry { seq: row.get(0)?, table: row.get(1)?, op, key: bytes(3)?.unwrap_or_default(), row: bytes(4)? })
}
