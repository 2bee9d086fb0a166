//! Pages on their way to being visible: stored with their cursor before the next one is asked for.

use rusqlite::{Connection, OptionalExtension};

use super::{Store, hold, state, upload};
use crate::{
    error::{Error, Result},
    page::Page,
};

/// What staging a page found out.
#[derive(Debug, PartialEq)]
pub(crate) struct Staged {
    pub cursor: String,
    pub has_more: bool,
    /// The page names a table that the installed app instructions do not: the rules may have changed.
    pub unknown_table: bool,
}

/// The newest staged page's cursor and whether more pages follow it.
pub(super) fn newest(conn: &Connection) -> Result<Option<(String, bool)>> {
    let sql = "SELECT cursor, has_more FROM posduif_staging ORDER BY seq DESC LIMIT 1";
    Ok(conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

impl Store {
    /// Stores the answer to a request for what comes after `since`. A page that could not be applied is refused: by
    /// the inner error where other tables than the installed ones may take it.
    pub fn stage(&mut self, since: Option<&str>, body: &[u8]) -> Result<Result<Staged>> {
        let page = Page::parse(body)?;
        if page.has_more && since == Some(page.cursor.as_str()) {
            return Err(Error::Protocol(
                "incoming page: there is more, and the cursor leads nowhere".to_owned(),
            ));
        }
        let skipped = state::skipped(&self.conn)?;
        let tables = self.tables()?;
        let mut unknown = match page.operations(&tables) {
            Ok(operations) => operations.unknown,
            Err(unfit) => return Ok(Err(unfit)),
        };
        unknown.retain(|name| !skipped.iter().any(|skipped| skipped.table == *name));
        self.write(|tx| {
            let progress = state::progress(tx)?;
            if progress.since.as_deref() != since || progress.complete {
                // Another sync was cut off while its last statement was still running.
                return Err(Error::Busy);
            }
            tx.execute(
                "INSERT INTO posduif_staging (cursor, has_more, body) VALUES (?1, ?2, ?3)",
                (&page.cursor, page.has_more, body),
            )?;
            Ok(())
        })?;
        let unknown_table = !unknown.is_empty();
        Ok(Ok(Staged { cursor: page.cursor, has_more: page.has_more, unknown_table }))
    }

    /// Forgets where the device stands, and that its tables are what the server says.
    pub fn resync(&mut self) -> Result<()> {
        self.write(|tx| {
            state::set(tx, "stale", 1)?;
            start_over(tx)
        })
    }
}

/// Forgets where the device stands, so that the next page asked for begins a snapshot.
///
/// The server's history may be another one now. A receipt of the old one proves nothing in it, so what was sent
/// and not seen again is sent once more, under another upload id: the first answer would be one of the old history.
pub(super) fn start_over(tx: &Connection) -> Result<()> {
    upload::forget(tx)?;
    tx.execute("DELETE FROM posduif_staging", [])?;
    tx.execute("DELETE FROM posduif_state WHERE name IN ('cursor', 'lsn')", [])?;
    tx.execute("UPDATE posduif_outbox SET state = 'pending', receipt = NULL", [])?;
    Ok(())
}

/// What a catch-up made visible.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Applied {
    pub received: usize,
    pub snapshot: bool,
    pub lsn: Option<posduif_model::Lsn>,
}

impl Store {
    /// Makes all staged pages visible, settles the outbox by them and moves the cursor, in one transaction.
    pub fn apply(&mut self) -> Result<Applied> {
        let tables = self.tables()?;
        self.write(|tx| {
            let mut applied = Applied::default();
            state::set(tx, "applying", 1)?;
            let mut pages = tx.prepare("SELECT body FROM posduif_staging ORDER BY seq")?;
            let mut rows = pages.query([])?;
            while let Some(row) = rows.next()? {
                let page = Page::parse(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
                if page.snapshot && !applied.snapshot {
                    applied.snapshot = true;
                    for table in &tables {
                        hold::truncate(tx, table)?;
                    }
                }
                applied.received += super::apply::page(tx, &page, &tables)?;
                applied.lsn = page.lsn.or(applied.lsn);
                state::set(tx, "cursor", &page.cursor)?;
            }
            state::synced(tx)?;
            drop(rows);
            drop(pages);
            if let Some(lsn) = applied.lsn {
                state::set(tx, "lsn", lsn.to_string())?;
                hold::settle_up_to(tx, lsn)?;
            }
            hold::release(tx, &tables)?;
            tx.execute("DELETE FROM posduif_staging", [])?;
            state::set(tx, "applying", 0)?;
            applied.lsn = state::lsn(tx)?;
            Ok(applied)
        })
    }
}
