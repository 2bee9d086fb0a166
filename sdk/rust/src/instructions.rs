//! The server's app instructions in, the tables this device keeps out.

use posduif_model::TableName;
use serde::{Deserialize, Serialize};

use crate::{
    cell::Affinity,
    error::{Error, Result},
};

/// What the server tells a device to create and how to ask.
#[derive(Debug, Deserialize)]
pub(crate) struct Instructions {
    /// Names this version of tables and columns; part of every cursor.
    pub rules: String,
    #[serde(default)]
    pub sync_config: SyncConfig,
    pub tables: Vec<Table>,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(crate) struct SyncConfig {
    /// Rows that the device wishes per incoming page.
    pub batch_size: u32,
}

impl Default for SyncConfig {
    fn default() -> Self {
        SyncConfig { batch_size: 100 }
    }
}

/// The list of an incoming page in which a built-in table has its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum List {
    Messages,
    Users,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub affinity: Affinity,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Write {
    pub columns: Vec<String>,
}

/// One synced table: its name at the server and in SQLite, its shape, and what the device may write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub name: TableName,
    pub local_name: String,
    #[serde(default)]
    pub list: Option<List>,
    pub primary_key: Vec<String>,
    pub columns: Vec<Column>,
    #[serde(default)]
    pub write: Option<Write>,
}

/// The version column that every writable table may have; it decides which of two writes wins.
const VERSION: &str = "updated_at";

/// What the upload of a message is made of; its sender and its state guard the local write.
const MESSAGE_COLUMNS: [&str; 7] =
    ["id", "recipient_id", "content", "created_at", "updated_at", "sender_id", "status"];

impl Instructions {
    /// Reads and checks the server's answer, so that creating the tables cannot fail for its sake.
    pub fn parse(body: &[u8]) -> Result<Self> {
        let instructions: Instructions =
            serde_json::from_slice(body).map_err(|error| Error::unreadable("app instructions", &error))?;
        for table in &instructions.tables {
            table.check().map_err(|why| {
                Error::Protocol(format!("app instructions for table {}: {why}", table.name))
            })?;
        }
        Ok(instructions)
    }
}

impl Table {
    fn check(&self) -> std::result::Result<(), &'static str> {
        let local = self.local_name.to_ascii_lowercase();
        if local.is_empty() || local.starts_with("posduif_") || local.starts_with("sqlite_") {
            return Err("its local name is reserved");
        }
        if self.primary_key.is_empty() || self.key_columns().count() != self.primary_key.len() {
            return Err("its primary key is not among its columns");
        }
        if self.list.is_some() && self.primary_key.len() != 1 {
            return Err("a built-in table has a key of one column");
        }
        if self.list == Some(List::Messages)
            && self.write.is_some()
            && !MESSAGE_COLUMNS.iter().all(|name| self.column(name).is_some())
        {
            return Err("a message that a device may write needs its columns");
        }
        Ok(())
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The key's columns, in key order.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.primary_key.iter().filter_map(|name| self.column(name))
    }

    /// The columns that a local UPDATE may change: what `write` grants and the version, never the key.
    pub fn writable(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| {
            let granted = self
                .write
                .as_ref()
                .is_some_and(|write| column.name == VERSION || write.columns.contains(&column.name));
            granted && !self.primary_key.contains(&column.name)
        })
    }

    /// The columns that the upload of a row carries.
    pub fn uploaded(&self) -> Vec<&Column> {
        if self.list == Some(List::Messages) {
            return MESSAGE_COLUMNS.iter().take(5).filter_map(|name| self.column(name)).collect();
        }
        self.key_columns().chain(self.writable()).collect()
    }
}
