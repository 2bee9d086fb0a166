//! The server's app instructions in, the tables this device keeps and those it does not keep out.

use posduif_model::TableName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    error::{Error, Result},
    table::Table,
};

/// What the server tells a device to create and how to ask.
#[derive(Debug)]
pub(crate) struct Instructions {
    /// Names this version of tables and columns; part of every cursor.
    pub rules: String,
    pub sync_config: SyncConfig,
    pub tables: Vec<Table>,
    pub skipped: Vec<SkippedTable>,
}

/// A table that the server syncs and this device does not keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedTable {
    /// The table's name at the server.
    pub table: String,
    pub reason: String,
}

#[derive(Deserialize)]
struct Announced<'a> {
    rules: String,
    #[serde(default)]
    sync_config: SyncConfig,
    #[serde(borrow)]
    tables: Vec<&'a RawValue>,
}

/// What even a table of an unknown form has.
#[derive(Deserialize)]
struct Named {
    name: TableName,
    #[serde(default)]
    list: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(crate) struct SyncConfig {
    /// Rows that the device wishes per incoming page.
    pub batch_size: u32,
    /// How often a device asks that is not told when there is something new.
    pub sync_interval_seconds: u32,
}

impl Default for SyncConfig {
    fn default() -> Self {
        SyncConfig { batch_size: 100, sync_interval_seconds: 30 }
    }
}

impl Instructions {
    /// Reads and checks the server's answer.
    ///
    /// A table that this version cannot keep is left out, so that the others go on. Without the messenger's
    /// tables the device would be none, so they are not left out.
    pub fn parse(body: &[u8]) -> Result<Self> {
        let unreadable = |error| Error::unreadable("app instructions", &error);
        let announced: Announced = serde_json::from_slice(body).map_err(unreadable)?;
        let mut instructions = Instructions {
            rules: announced.rules,
            sync_config: announced.sync_config,
            tables: Vec::with_capacity(announced.tables.len()),
            skipped: Vec::new(),
        };
        let mut tables = Vec::with_capacity(announced.tables.len());
        for raw in announced.tables {
            let named: Named = serde_json::from_str(raw.get()).map_err(unreadable)?;
            tables.push((raw, named));
        }
        // The messenger's tables have the first claim to their names.
        tables.sort_by_key(|(_, named)| !named.is_messengers());
        for (raw, named) in tables {
            match instructions.usable(raw) {
                Ok(table) => instructions.tables.push(table),
                Err(why) if named.is_messengers() => {
                    return Err(Error::Protocol(format!("app instructions for table {}: {why}", named.name)));
                }
                Err(why) => {
                    tracing::warn!(table = %named.name, why, "a table is left out");
                    instructions
                        .skipped
                        .push(SkippedTable { table: named.name.to_string(), reason: why.to_owned() });
                }
            }
        }
        Ok(instructions)
    }

    /// The announced table, if this device can keep it beside those before it.
    fn usable(&self, raw: &RawValue) -> std::result::Result<Table, &'static str> {
        let unknown = |_| "its form is unknown to this version of the device library";
        let table: Table = serde_json::from_str(raw.get()).map_err(unknown)?;
        table.check()?;
        if self.tables.iter().any(|other| other.name == table.name) {
            return Err("it is announced twice");
        }
        if self.tables.iter().any(|other| other.local_name.eq_ignore_ascii_case(&table.local_name)) {
            return Err("another table has its local name");
        }
        Ok(table)
    }
}

impl Named {
    fn is_messengers(&self) -> bool {
        let list = self.list.as_ref().and_then(serde_json::Value::as_str);
        matches!(list, Some("messages" | "users"))
    }
}
