//! The server's answer to an upload in, the fate of each of its items out.

use posduif_model::{Lsn, TableName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What the server answers for: a row, or that a message was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Item {
    pub table: TableName,
    pub key: Map<String, Value>,
    pub read: bool,
    /// All entries of this row: older writes share the newest one's fate.
    pub seqs: Vec<i64>,
}

/// The server's answer to an upload.
#[derive(Debug, Deserialize)]
struct Receipt {
    #[serde(default)]
    failed_messages: Vec<FailedMessage>,
    #[serde(default)]
    failed: Vec<FailedRow>,
    #[serde(default)]
    conflicts: Vec<Conflict>,
    #[serde(default)]
    lsn: Option<Lsn>,
}

#[derive(Debug, Deserialize)]
struct FailedMessage {
    message_id: Value,
    code: String,
    #[serde(default)]
    error: String,
}

#[derive(Debug, Deserialize)]
struct FailedRow {
    table: TableName,
    key: Value,
    code: String,
    #[serde(default)]
    error: String,
}

#[derive(Debug, Deserialize)]
struct Conflict {
    table: TableName,
    /// Older servers name the row by the winner alone.
    #[serde(default)]
    key: Option<Value>,
    /// The winner; null if that is a deletion. It comes with the pages too, so it is not kept here.
    #[serde(default)]
    row: Value,
}

/// What became of the entries of one upload. An entry in none of the lists stays pending.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// A position at or after the upload's commit.
    pub lsn: Lsn,
    /// The number of items that the server took.
    pub taken: usize,
    pub sent: Vec<i64>,
    /// The entries among `sent` that lost against a newer version at the server.
    pub superseded: Vec<i64>,
    pub rejected: Vec<Refusal>,
}

/// One item that the server will never take.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal {
    pub seqs: Vec<i64>,
    pub code: String,
    pub error: String,
}

/// An item that failed with one of these is sent again; any other code is about the item itself.
const TEMPORARY: [&str; 5] =
    ["RATE_LIMITED", "SYNC_ERROR", "DATABASE_ERROR", "REDIS_ERROR", "INTERNAL_ERROR"];

/// Reads the server's answer to these items. An item that it does not mention was taken.
pub(crate) fn outcome(items: &[Item], answer: &[u8]) -> Result<Outcome> {
    let receipt: Receipt =
        serde_json::from_slice(answer).map_err(|error| Error::unreadable("answer to an upload", &error))?;
    let mut outcome = Outcome { lsn: receipt.lsn.unwrap_or_default(), ..Outcome::default() };
    for item in items {
        match receipt.failure(item) {
            None => {
                let lost = |conflict: &Conflict| {
                    !item.read && item.is(&conflict.table, conflict.key.as_ref().unwrap_or(&conflict.row))
                };
                if receipt.conflicts.iter().any(lost) {
                    outcome.superseded.extend(&item.seqs);
                }
                outcome.taken += 1;
                outcome.sent.extend(&item.seqs);
            }
            Some((code, _)) if TEMPORARY.contains(&code) => {}
            Some((code, error)) => outcome.rejected.push(Refusal {
                seqs: item.seqs.clone(),
                code: code.to_owned(),
                error: error.to_owned(),
            }),
        }
    }
    if receipt.lsn.is_none() && outcome.taken > 0 {
        return Err(Error::Protocol("answer to an upload: no lsn".to_owned()));
    }
    Ok(outcome)
}

impl Receipt {
    fn failure(&self, item: &Item) -> Option<(&str, &str)> {
        let message = self
            .failed_messages
            .iter()
            .find(|failed| item.table.name() == "messages" && item.has_key(&failed.message_id));
        let row = || self.failed.iter().find(|failed| item.is(&failed.table, &failed.key));
        match message {
            Some(failed) => Some((&failed.code, &failed.error)),
            None => row().map(|failed| (failed.code.as_str(), failed.error.as_str())),
        }
    }
}

impl Item {
    pub fn is_same(&self, other: &Item) -> bool {
        self.table == other.table && self.key == other.key && self.read == other.read
    }

    fn is(&self, table: &TableName, key: &Value) -> bool {
        self.table == *table && self.has_key(key)
    }

    /// A key is an object that holds at least the key columns or, for a key of one column, its value.
    fn has_key(&self, key: &Value) -> bool {
        match key {
            Value::Object(object) => {
                self.key.iter().all(|(name, own)| object.get(name).is_some_and(|other| same_text(own, other)))
            }
            single => self.key.len() == 1 && self.key.values().all(|own| same_text(own, single)),
        }
    }
}

/// The wire may carry one number as a JSON number or, when it is long, as a string.
fn same_text(one: &Value, other: &Value) -> bool {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text(one) == text(other)
}
