//! The shape of a synced table, as the server announces it and as the device keeps it.

use std::collections::BTreeSet;

use posduif_model::TableName;
use rusqlite::types::Value;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cell::{self, Affinity};

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
    /// The column holds JSON documents, which come embedded in the row.
    #[serde(default)]
    pub json: bool,
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

impl Table {
    /// Whether the device can keep the table; an error says why not.
    pub fn check(&self) -> Result<(), &'static str> {
        let local = self.local_name.to_ascii_lowercase();
        if local.is_empty() || local.starts_with("posduif_") || local.starts_with("sqlite_") {
            return Err("its local name is reserved");
        }
        let mut names = BTreeSet::new();
        if !self.columns.iter().all(|column| names.insert(column.name.to_ascii_lowercase())) {
            return Err("two of its columns differ in case only");
        }
        if names.contains("posduif_present") {
            return Err("it has a column of a reserved name");
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

impl Column {
    /// A wire value as it is stored in this column; `None` when it cannot be stored faithfully.
    pub fn stored(&self, raw: &RawValue) -> Option<Value> {
        if self.json { Some(cell::json_from_wire(raw)) } else { cell::from_wire(self.affinity, raw) }
    }
}
