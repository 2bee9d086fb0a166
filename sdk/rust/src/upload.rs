//! Outbox entries in, one upload out.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::{
    cell,
    error::{Error, Result},
    receipt::{Item, Refusal},
    table::{List, Table},
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
    pub key: Vec<u8>,
    /// JSON object of the uploaded columns, of a delete its version; none for a read.
    pub row: Option<Vec<u8>>,
}

/// Some entries, ready to be sent.
#[derive(Debug)]
pub(crate) struct Batch {
    outgoing: Outgoing,
    pub items: Vec<Item>,
    /// The entries that no upload can carry, because they cannot be read back.
    pub unreadable: Vec<Refusal>,
}

/// An upload as it is sent, however often.
#[derive(Serialize)]
struct Body<'a> {
    upload_id: &'a str,
    /// The writes that stay on the device after this upload.
    pending_outgoing_count: u32,
    #[serde(flatten)]
    outgoing: &'a Outgoing,
}

/// Each value with the place of its item.
#[derive(Debug, Default, Serialize)]
struct Outgoing {
    #[serde(serialize_with = "values")]
    messages: Vec<(usize, Value)>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "values")]
    users: Vec<(usize, Value)>,
    #[serde(serialize_with = "values")]
    reads: Vec<(usize, Value)>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "values")]
    changes: Vec<(usize, Value)>,
}

enum Content {
    Message(Value),
    User(Value),
    Read(Value),
    Change(Value),
}

impl Batch {
    /// Makes the upload of these entries, which come in the order in which they were written.
    pub fn new(entries: &[Entry], tables: &[Table]) -> Self {
        let mut outgoing = Outgoing::default();
        let mut items: Vec<Item> = Vec::new();
        let mut unreadable = Vec::new();
        for entry in entries {
            let Some((item, content)) = encode(entry, tables) else {
                unreadable.push(Refusal {
                    seqs: vec![entry.seq],
                    code: "VALIDATION_ERROR".to_owned(),
                    error: "this write cannot be made JSON, so it was not sent".to_owned(),
                });
                continue;
            };
            let same = |(place, other): (usize, &mut Item)| item.is_same(other).then_some(place);
            let known = items.iter_mut().enumerate().find_map(same);
            let place = known.unwrap_or(items.len());
            outgoing.add(place, content);
            match items.get_mut(place) {
                Some(known) => known.seqs.extend(item.seqs),
                None => items.push(item),
            }
        }
        Batch { outgoing, items, unreadable }
    }

    /// The JSON that is sent.
    pub fn body(&self, upload_id: &str, pending_outgoing_count: u32) -> Result<Vec<u8>> {
        let body = Body { upload_id, pending_outgoing_count, outgoing: &self.outgoing };
        serde_json::to_vec(&body).map_err(|error| Error::Unusable(error.to_string()))
    }
}

impl Outgoing {
    /// A newer write takes the place of an older one of the same row. A change does so only where no other row's
    /// lies between: the server takes them one by one, and each must find there the rows that it refers to, as it
    /// did on the device.
    fn add(&mut self, item: usize, content: Content) {
        let (list, value, ordered) = match content {
            Content::Message(value) => (&mut self.messages, value, false),
            Content::User(value) => (&mut self.users, value, false),
            Content::Read(value) => (&mut self.reads, value, false),
            Content::Change(value) => (&mut self.changes, value, true),
        };
        let replaced = match ordered {
            true => list.last_mut().filter(|(last, _)| *last == item),
            false => list.iter_mut().find(|(other, _)| *other == item),
        };
        match replaced {
            Some((_, older)) => *older = value,
            None => list.push((item, value)),
        }
    }
}

fn values<S: Serializer>(list: &[(usize, Value)], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(|(_, value)| value))
}

/// What the wire says of a captured write; `None` if the capture cannot be read back.
fn encode(entry: &Entry, tables: &[Table]) -> Option<(Item, Content)> {
    let table = tables.iter().find(|table| table.name.to_string() == entry.table)?;
    let values: Vec<Value> = serde_json::from_slice(&entry.key).ok()?;
    let mut key = Map::new();
    for (column, value) in table.key_columns().zip(values) {
        key.insert(column.name.clone(), cell::to_wire(column.affinity, value)?);
    }
    let row = match &entry.row {
        Some(row) => Some(wire_row(table, row)?),
        None => None,
    };
    let content = match (entry.op, table.list, row) {
        (EntryOp::Read, ..) => Content::Read(key.values().next()?.clone()),
        (EntryOp::Put, Some(List::Messages), Some(row)) => Content::Message(row),
        (EntryOp::Put, Some(List::Users), Some(row)) => Content::User(row),
        (EntryOp::Put, None, Some(row)) => {
            Content::Change(serde_json::json!({"table": table.name, "op": "upsert", "key": key, "row": row}))
        }
        (EntryOp::Put, _, None) => return None,
        (EntryOp::Delete, _, None) => {
            Content::Change(serde_json::json!({"table": table.name, "op": "delete", "key": key}))
        }
        (EntryOp::Delete, _, Some(row)) => {
            Content::Change(serde_json::json!({"table": table.name, "op": "delete", "key": key, "row": row}))
        }
    };
    let read = entry.op == EntryOp::Read;
    Some((Item { table: table.name.clone(), key, read, seqs: vec![entry.seq] }, content))
}

fn wire_row(table: &Table, json: &[u8]) -> Option<Value> {
    let stored: Map<String, Value> = serde_json::from_slice(json).ok()?;
    let mut row = Map::new();
    for (name, value) in stored {
        if let Some(column) = table.column(&name) {
            row.insert(name, cell::to_wire(column.affinity, value)?);
        }
    }
    Some(Value::Object(row))
}

#[cfg(test)]
mod tests {
    use posduif_model::Lsn;

    use super::*;
    use crate::{instructions::Instructions, receipt::outcome};

    fn tables() -> Vec<Table> {
        let body = br#"{"rules":"r","tables":[
            {"name":"public.messages","local_name":"messages","list":"messages","primary_key":["id"],
             "columns":[{"name":"id","type":"TEXT"},{"name":"content","type":"TEXT"}]},
            {"name":"public.tasks","local_name":"tasks","primary_key":["a","b"],
             "columns":[{"name":"a","type":"INTEGER"},{"name":"b","type":"BLOB"},{"name":"c","type":"REAL"}]}]}"#;
        Instructions::parse(body).unwrap().tables
    }

    fn entry(seq: i64, table: &str, op: EntryOp, key: &str, row: Option<&str>) -> Entry {
        Entry { seq, table: table.to_owned(), op, key: key.into(), row: row.map(Into::into) }
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
        let batch = Batch::new(&entries, &tables());
        assert_eq!(
            serde_json::from_slice::<Value>(&batch.body("u-1", 7).unwrap()).unwrap(),
            serde_json::json!({
                "upload_id": "u-1", "pending_outgoing_count": 7,
                "messages": [{"id": "m", "content": "second"}],
                "reads": ["m"],
                "changes": [{"table": "public.tasks", "op": "upsert", "key": {"a": 7, "b": "AP8="},
                             "row": {"a": 7, "b": "AP8=", "c": 0.25}}],
            })
        );
        let outcome = outcome(&batch.items, br#"{"synced_count":3,"failed_count":0,"lsn":"0/10"}"#).unwrap();
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
            entry(6, "public.tasks", EntryOp::Delete, "[8,\"00\"]", Some(r#"{"c":"0.5"}"#)),
        ];
        let batch = Batch::new(&entries, &tables());
        let outcome = outcome(
                &batch.items,
                br#"{"failed_messages":[{"message_id":"refused","code":"EMPTY_MESSAGE","error":"empty"},
                                        {"message_id":"later","code":"DATABASE_ERROR","error":"busy"}],
                     "failed":[{"table":"public.tasks","key":{"a":"7","b":"AP8="},"code":"FORBIDDEN"}],
                     "conflicts":[{"table":"public.messages","row":{"id":"old","content":"newer"}},
                                  {"table":"public.tasks","key":{"a":8,"b":"AA=="},"row":null}],"lsn":"0/1"}"#,
            )
            .unwrap();
        assert_eq!(outcome.sent, [1, 4, 6]);
        assert_eq!(outcome.superseded, [4, 6]);
        let refused: Vec<_> = outcome.rejected.iter().map(|r| (r.seqs.as_slice(), r.code.as_str())).collect();
        assert_eq!(refused, [(&[2][..], "EMPTY_MESSAGE"), (&[5], "FORBIDDEN")]);
    }

    #[test]
    fn an_answer_without_a_receipt_settles_nothing() {
        let batch = Batch::new(&[message(1, "m", "")], &tables());
        for answer in [&b"{}"[..], b"<html>", br#"{"synced_count":1,"lsn":null}"#] {
            assert!(matches!(outcome(&batch.items, answer), Err(Error::Protocol(_))));
        }
        let refused = br#"{"failed_messages":[{"message_id":"m","code":"EMPTY_MESSAGE"}],"lsn":null}"#;
        assert_eq!(outcome(&batch.items, refused).unwrap().rejected.len(), 1);
    }
}
