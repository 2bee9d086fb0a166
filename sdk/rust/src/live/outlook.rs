//! Commits to the device's file in, whether a local write waits for its upload out.
//!
//! The application writes over connections that this library does not know, so neither a hook nor a channel
//! tells of it. SQLite counts the commits of all connections in memory that they share: asking whether anybody
//! committed costs no I/O, and only then the outbox is looked at.

use std::path::Path;

use chrono::{DateTime, Utc};
use rusqlite::Connection;

use crate::{error::Result, store};

/// What the file says to somebody who wants to show it.
pub(super) struct Outlook {
    pub pending: u32,
    /// The place of the newest write that waits.
    pub newest: Option<i64>,
    pub last_synced: Option<DateTime<Utc>>,
}

/// A connection of its own: SQLite tells each connection of the commits of the others.
pub(super) struct Lookout {
    conn: Connection,
    version: Option<i64>,
}

impl Lookout {
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Lookout { conn: store::connect(path)?, version: None })
    }

    /// The file as it is; `None` if nobody committed since the last look.
    pub fn look(&mut self) -> Result<Option<Outlook>> {
        let version = self.conn.pragma_query_value(None, "data_version", |row| row.get(0))?;
        if self.version == Some(version) {
            return Ok(None);
        }
        let (pending, newest) = store::waiting(&self.conn)?;
        let last_synced = store::last_synced(&self.conn)?;
        self.version = Some(version);
        Ok(Some(Outlook { pending, newest, last_synced }))
    }
}
