//! `posduif_upload`: the upload whose answer is still missing, exactly as it was sent.
//!
//! An upload may have been applied though its answer never came. It is repeated under the same id with the same
//! bytes, whatever was written or installed since, and the server answers what it answered first.

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use super::{
    Store,
    outbox::{pending, record, waiting},
    state,
};
use crate::{
    error::Result,
    receipt::{Item, Outcome},
    upload::Batch,
};

/// An upload that is on disk and may be sent.
#[derive(Debug)]
pub(crate) struct StoredUpload {
    /// The youngest entry that it carries.
    pub upto: i64,
    pub items: Vec<Item>,
    pub body: Vec<u8>,
}

/// What is to be uploaded next.
#[derive(Debug)]
pub(crate) enum NextUpload {
    Nothing,
    Send(StoredUpload),
    /// So many entries could not be read back and are out of the way now; ask again.
    Unreadable(usize),
}

impl Store {
    /// The upload that was not answered yet, else one of at most `limit` pending entries younger than `after`.
    pub fn next_upload(&mut self, after: i64, limit: usize) -> Result<NextUpload> {
        let tables = self.tables()?;
        self.write(|tx| {
            if let Some(upload) = stored(tx)? {
                return Ok(NextUpload::Send(upload));
            }
            let entries = pending(tx, after, limit)?;
            let Some(upto) = entries.last().map(|entry| entry.seq) else { return Ok(NextUpload::Nothing) };
            let mut batch = Batch::new(&entries, &tables);
            let rejected = std::mem::take(&mut batch.unreadable);
            if !rejected.is_empty() {
                let count = rejected.len();
                record(tx, &tables, &Outcome { rejected, ..Outcome::default() })?;
                return Ok(NextUpload::Unreadable(count));
            }
            let waiting = usize::try_from(waiting(tx)?.0).unwrap_or(usize::MAX);
            let left = u32::try_from(waiting.saturating_sub(entries.len())).unwrap_or(u32::MAX);
            let id = Uuid::new_v4().to_string();
            let body = batch.body(&id, left)?;
            tx.execute(
                "INSERT INTO posduif_upload (id, upto, items, body) VALUES (?1, ?2, ?3, ?4)",
                (&id, upto, serde_json::json!(batch.items).to_string(), &body),
            )?;
            Ok(NextUpload::Send(StoredUpload { upto, items: batch.items, body }))
        })
    }

    /// The server refuses the upload as a whole: nothing of it was applied, and its entries go into others.
    pub fn forget_upload(&mut self) -> Result<()> {
        self.write(|tx| forget(tx))
    }
}

/// Drops the stored upload; its entries stay as they are.
pub(super) fn forget(tx: &Connection) -> Result<()> {
    tx.execute("DELETE FROM posduif_upload", [])?;
    Ok(())
}

fn stored(tx: &Connection) -> Result<Option<StoredUpload>> {
    let sql = "SELECT upto, items, body FROM posduif_upload";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?));
    let Some((upto, items, body)) = tx.query_row(sql, [], read).optional()? else { return Ok(None) };
    let items = serde_json::from_str(&items).map_err(|error| state::damaged("upload", error))?;
    Ok(Some(StoredUpload { upto, items, body }))
}

impl StoredUpload {
    /// Reads the server's answer.
    pub fn outcome(&self, answer: &[u8]) -> Result<Outcome> {
        crate::receipt::outcome(&self.items, answer)
    }
}
