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
    /// The column that names the user whose row it is.
    #[serde(default)]
    pub owner: Option<String>,
    /// The column that decides which of two writes wins.
    #[serde(default)]
    pub version: Option<String>,
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

/// The version column of messages.
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

    /// The column that says whose a row is, where the device can tell by it whom a write would concern. Messages have
    /// rules of their own.
    pub fn owner(&self) -> Option<&Column> {
        match self.list {
            Some(List::Messages) => None,
            Some(List::Users) => self.write.as_ref().and(self.key_columns().next()),
            None => self.column(self.write.as_ref()?.owner.as_ref()?),
        }
    }

    /// The column that the last write wins by, where the device has it.
    pub fn version(&self) -> Option<&Column> {
        let named = self.write.as_ref()?.version.as_deref();
        let messages = (self.list == Some(List::Messages)).then_some(VERSION);
        self.column(named.or(messages)?).filter(|column| column.affinity == Affinity::Text)
    }

    /// The columns that `write` grants, but for key, owner and version.
    pub fn granted(&self) -> impl Iterator<Item = &Column> {
        let (owner, version) = (self.owner(), self.version());
        self.columns.iter().filter(move |column| {
            self.write.as_ref().is_some_and(|write| write.columns.contains(&column.name))
                && !self.primary_key.contains(&column.name)
                && Some(*column) != owner
                && Some(*column) != version
        })
    }

    /// The columns that a local UPDATE may change: what is granted and the version.
    pub fn writable(&self) -> impl Iterator<Item = &Column> {
        let version = self.version().filter(|version| !self.primary_key.contains(&version.name));
        self.granted().chain(version)
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
