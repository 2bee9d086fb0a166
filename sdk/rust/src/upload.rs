//! Outbox entries in, one upload and the fate of each entry out.

use posduif_model::{Lsn, TableName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    cell,
    error::{Error, Result},
    instructions::{List, Table},
};

/// What a local write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryOp {
    /// The row exists with these values.
    Put,
    Delete,
    /// The user has read the message.
    Read,
}

/// One captured local write.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub seq: i64,
    pub table: String,
    pub op: EntryOp,
    /// JSON array of the key's values, as the trigger wrote it.
    pub key: String,
    /// JSON object of the uploaded columns; none for a delete or a read.
    pub row: Option<String>,
}

/// The newest write of each key among some entries, ready to be sent.
#[derive(Debug)]
pub(crate) struct Batch {
    pub body: Vec<u8>,
    items: Vec<Item>,
}

#[derive(Debug)]
struct Item {
    table: TableName,
    key: Map<String, Value>,
    /// All entries that this item stands for: an older write of the same key shares the newest one's fate.
    seqs: Vec<i64>,
}

#[derive(Default, Serialize)]
struct Outgoing {
    messages: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<Value>,
    reads: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Value>,
}

/// The server's answer to an upload.
#[derive(Debug, Deserialize)]
pub(crate) struct Receipt {
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

impl Batch {
    /// Makes the upload of these entries, which come in the order in which they were written.
    pub fn new(entries: Vec<Entry>, tables: &[Table]) -> Result<Self> {
        let mut newest: Vec<(Entry, Vec<i64>)> = Vec::new();
        for entry in entries {
            let same = |other: &Entry| {
                let read = |entry: &Entry| entry.op == EntryOp::Read;
                other.table == entry.table && other.key == entry.key && read(other) == read(&entry)
            };
            match newest.iter_mut().find(|(other, _)| same(other)) {
                Some((other, seqs)) => {
                    seqs.push(entry.seq);
                    *other = entry;
                }
                None => {
                    let seqs = vec![entry.seq];
                    newest.push((entry, seqs));
                }
            }
        }
        let mut outgoing = Outgoing::default();
        let mut items = Vec::with_capacity(newest.len());
        for (entry, seqs) in newest {
            let item = outgoing
                .add(&entry, seqs, tables)
                .ok_or_else(|| Error::Unusable(format!("outbox entry {} cannot be read back", entry.seq)))?;
            items.push(item);
        }
        let body = serde_json::to_vec(&outgoing).map_err(|error| Error::Unusable(error.to_string()))?;
        Ok(Batch { body, items })
    }

    /// Reads the server's answer. An item that it does not mention was taken.
    pub fn outcome(&self, answer: &[u8]) -> Result<Outcome> {
        let receipt: Receipt = serde_json::from_slice(answer)
            .map_err(|error| Error::unreadable("answer to an upload", &error))?;
        let mut outcome = Outcome { lsn: receipt.lsn.unwrap_or_default(), ..Outcome::default() };
        for item in &self.items {
            match receipt.failure(item) {
                None => {
                    if receipt.conflicts.iter().any(|conflict| item.is(&conflict.table, &conflict.row)) {
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
}

impl Outgoing {
    fn add(&mut self, entry: &Entry, seqs: Vec<i64>, tables: &[Table]) -> Option<Item> {
        let table = tables.iter().find(|table| table.name.to_string() == entry.table)?;
        let values: Vec<Value> = serde_json::from_str(&entry.key).ok()?;
        let mut key = Map::new();
        for (column, value) in table.key_columns().zip(values) {
            key.insert(column.name.clone(), cell::to_wire(column.affinity, value)?);
        }
        let row = match &entry.row {
            Some(row) => Some(wire_row(table, row)?),
            None => None,
        };
        match (entry.op, table.list, row) {
            (EntryOp::Read, ..) => self.reads.push(key.values().next()?.clone()),
            (EntryOp::Put, Some(List::Messages), Some(row)) => self.messages.push(row),
            (EntryOp::Put, Some(List::Users), Some(row)) => self.users.push(row),
            (EntryOp::Put, None, Some(row)) => self
                .changes
                .push(serde_json::json!({"table": table.name, "op": "upsert", "key": key, "row": row})),
            (EntryOp::Put, _, None) => return None,
            (EntryOp::Delete, ..) => {
                self.changes.push(serde_json::json!({"table": table.name, "op": "delete", "key": key}));
            }
        }
        Some(Item { table: table.name.clone(), key, seqs })
    }
}

fn wire_row(table: &Table, json: &str) -> Option<Value> {
    let stored: Map<String, Value> = serde_json::from_str(json).ok()?;
    let mut row = Map::new();
    for (name, value) in stored {
        if let Some(column) = table.column(&name) {
            row.insert(name, cell::to_wire(column.affinity, value)?);
        }
    }
    Some(Value::Object(row))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instructions::Instructions;

    fn tables() -> Vec<Table> {
        let body = br#"{"rules":"r","tables":[
            {"name":"public.messages","local_name":"messages","list":"messages","primary_key":["id"],
             "columns":[{"name":"id","type":"TEXT"},{"name":"content","type":"TEXT"}]},
            {"name":"public.tasks","local_name":"tasks","primary_key":["a","b"],
             "columns":[{"name":"a","type":"INTEGER"},{"name":"b","type":"BLOB"},{"name":"c","type":"REAL"}]}]}"#;
        Instructions::parse(body).unwrap().tables
    }

    fn entry(seq: i64, table: &str, op: EntryOp, key: &str, row: Option<&str>) -> Entry {
        Entry { seq, table: table.to_owned(), op, key: key.to_owned(), row: row.map(str::to_owned) }
    }

    fn message(seq: i64, id: &str, content: &str) -> Entry {
        let row = serde_json::json!({"id": id, "content": content}).to_string();
        entry(seq, "public.messages", EntryOp::Put, &format!("[\"{id}\"]"), Some(&row))
    }

    #[test]
    fn the_newest_write_of_a_key_stands_for_the_older_ones() {
        let task = |seq, op, row| entry(seq, "public.tasks", op, "[7,\"00FF\"]", row);
        let entries = vec![
            message(1, "m", "first"),
            task(2, EntryOp::Put, Some(r#"{"a":7,"b":"00FF","c":"0.5"}"#)),
            message(3, "m", "second"),
            entry(4, "public.messages", EntryOp::Read, "[\"m\"]", None),
            task(5, EntryOp::Put, Some(r#"{"a":7,"b":"00FF","c":"0.25"}"#)),
        ];
        let batch = Batch::new(entries, &tables()).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&batch.body).unwrap(),
            serde_json::json!({
                "messages": [{"id": "m", "content": "second"}],
                "reads": ["m"],
                "changes": [{"table": "public.tasks", "op": "upsert", "key": {"a": 7, "b": "AP8="},
                             "row": {"a": 7, "b": "AP8=", "c": 0.25}}],
            })
        );
        let outcome = batch.outcome(br#"{"synced_count":3,"failed_count":0,"lsn":"0/10"}"#).unwrap();
        assert_eq!(outcome.sent, [1, 3, 2, 5, 4]);
        assert_eq!((outcome.taken, outcome.lsn), (3, Lsn::new(16)));
    }

    #[test]
    fn each_item_gets_its_own_verdict() {
        let entries = vec![
            message(1, "taken", ""),
            message(2, "refused", ""),
            message(3, "later", ""),
            message(4, "old", ""),
            entry(5, "public.tasks", EntryOp::Delete, "[7,\"00FF\"]", None),
        ];
        let batch = Batch::new(entries, &tables()).unwrap();
        let outcome = batch
            .outcome(
                br#"{"failed_messages":[{"message_id":"refused","code":"EMPTY_MESSAGE","error":"empty"},
                                        {"message_id":"later","code":"DATABASE_ERROR","error":"busy"}],
                     "failed":[{"table":"public.tasks","key":{"a":"7","b":"AP8="},"code":"FORBIDDEN"}],
                     "conflicts":[{"table":"public.messages","row":{"id":"old","content":"newer"}}],"lsn":"0/1"}"#,
            )
            .unwrap();
        assert_eq!(outcome.sent, [1, 4]);
        assert_eq!(outcome.superseded, [4]);
        let refused: Vec<_> = outcome.rejected.iter().map(|r| (r.seqs.as_slice(), r.code.as_str())).collect();
        assert_eq!(refused, [(&[2][..], "EMPTY_MESSAGE"), (&[5], "FORBIDDEN")]);
    }

    #[test]
    fn an_answer_without_a_receipt_settles_nothing() {
        let batch = Batch::new(vec![message(1, "m", "")], &tables()).unwrap();
        for answer in [&b"{}"[..], b"<html>", br#"{"synced_count":1,"lsn":null}"#] {
            assert!(matches!(batch.outcome(answer), Err(Error::Protocol(_))));
        }
        let refused = br#"{"failed_messages":[{"message_id":"m","code":"EMPTY_MESSAGE"}],"lsn":null}"#;
        assert_eq!(batch.outcome(refused).unwrap().rejected.len(), 1);
    }
}
