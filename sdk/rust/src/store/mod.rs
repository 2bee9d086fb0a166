//! The device's SQLite file: what is written down before the next step is taken.
//!
//! Everything that is promised to somebody is on disk first: a local write when its INSERT returns, a staged
//! page before its cursor is sent back. Hence `synchronous = FULL` in WAL mode, where each commit is flushed.

mod apply;
#[cfg(test)]
mod full;
mod hold;
mod identity;
mod install;
mod outbox;
mod staging;
mod stamp;
mod state;
mod triggers;
mod upload;

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{error::Result, table::Table};

pub(crate) use identity::connect;
pub(crate) use outbox::waiting;
pub(crate) use staging::Staged;
pub(crate) use state::{Enrollment, last_synced, skipped, tables};
pub(crate) use upload::NextUpload;

/// Compiled statements that are kept: some for each synced table.
const STATEMENTS: usize = 256;

/// The one connection that syncs; the application writes over others.
pub(crate) struct Store {
    conn: Connection,
}

impl Store {
    /// Opens an existing device database.
    pub fn open(path: &Path) -> Result<Self> {
        Self::own(identity::connect(path)?)
    }

    /// Opens the device database, or makes one of a file that is missing or empty.
    pub fn open_or_create(path: &Path) -> Result<Self> {
        identity::create(path)?;
        Self::open(path)
    }

    fn own(conn: Connection) -> Result<Self> {
        // An application may point foreign keys of its own tables at synced rows; sync must not fail for them.
        conn.pragma_update(None, "foreign_keys", false)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(Store { conn })
    }

    /// Runs the statements as one transaction that holds SQLite's write lock from its start.
    fn write<T>(&mut self, statements: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let tx = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = statements(&tx)?;
        tx.commit()?;
        Ok(result)
    }

    /// The synced tables as they were last installed; none before the first app instructions.
    pub fn tables(&self) -> Result<Vec<Table>> {
        state::tables(&self.conn)
    }
}
