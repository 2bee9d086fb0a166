//! Rows as JSON texts in, the body of a page out; texts are joined, never parsed or encoded again.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use posduif_changelog::{LogError, fold::FinalChange};
use posduif_model::{Lsn, Op, TableName, value::write_string};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::clock;

/// The key of `messages` and `users`; the one thing that is looked for inside a stored text.
#[derive(Deserialize)]
struct IdKey<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
}

/// Which list of a page holds a table's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Messages,
    Users,
    Changes,
}

impl List {
    pub fn of(table: &TableName) -> Self {
        match (table.schema(), table.name()) {
            ("public", "messages") => List::Messages,
            ("public", "users") => List::Users,
            _ => List::Changes,
        }
    }

    /// The list's name, for the tables that have one of their own.
    pub fn name(self) -> Option<&'static str> {
        match self {
            List::Messages => Some("messages"),
            List::Users => Some("users"),
            List::Changes => None,
        }
    }
}

/// A page that is being filled.
#[derive(Debug, Default)]
pub struct Body {
    messages: String,
    users: String,
    changes: String,
    deleted_messages: String,
    deleted_users: String,
}

/// What a page says besides its rows.
#[derive(Clone, Debug)]
pub struct Tail {
    pub cursor: String,
    /// Everything of this device up to here is in this page or was in earlier ones.
    pub lsn: Lsn,
    pub has_more: bool,
    pub snapshot: bool,
    pub sync_timestamp: DateTime<Utc>,
}

impl Body {
    /// Adds a row of a table page; nothing is known there of who wrote it.
    pub fn push_row(&mut self, table: &TableName, key: &str, row: &str, lsn: Lsn) {
        match List::of(table) {
            List::Messages => append(&mut self.messages, row),
            List::Users => append(&mut self.users, row),
            List::Changes => push_change(&mut self.changes, table, "upsert", key, row, lsn, false),
        }
    }

    /// Adds the final word of the log on a row.
    ///
    /// # Errors
    /// `Corrupt` for the key of a deleted message or user that has no id.
    pub fn push_final(&mut self, last: &FinalChange) -> Result<(), LogError> {
        let (change, lsn, own) = (&last.change, last.position.commit, last.own);
        let mut other = |op, key, row| push_change(&mut self.changes, &change.table, op, key, row, lsn, own);
        match (change.op, List::of(&change.table)) {
            (Op::Truncate, _) => other("truncate", "null", "null"),
            (Op::Put, List::Changes) => other("upsert", &change.key, &change.row),
            (Op::Delete, List::Changes) => other("delete", &change.key, "null"),
            (Op::Put, List::Messages) => append(&mut self.messages, &flagged(&change.row, own)),
            (Op::Put, List::Users) => append(&mut self.users, &flagged(&change.row, own)),
            (Op::Delete, List::Messages) => append(&mut self.deleted_messages, id_of(&change.key)?),
            (Op::Delete, List::Users) => append(&mut self.deleted_users, id_of(&change.key)?),
        }
        Ok(())
    }

    /// The whole JSON text.
    pub fn finish(self, tail: &Tail) -> String {
        let Body { messages, users, changes, deleted_messages, deleted_users } = self;
        let mut cursor = String::new();
        write_string(&tail.cursor, &mut cursor);
        let at = clock::told(tail.sync_timestamp);
        let Tail { lsn, has_more, snapshot, .. } = tail;
        format!(
            r#"{{"messages":[{messages}],"users":[{users}],"changes":[{changes}],"deleted":{{"messages":[{deleted_messages}],"users":[{deleted_users}]}},"cursor":{cursor},"lsn":"{lsn}","has_more":{has_more},"snapshot":{snapshot},"compressed":false,"sync_timestamp":"{at}"}}"#
        )
    }
}

fn append(list: &mut String, json: &str) {
    if !list.is_empty() {
        list.push(',');
    }
    list.push_str(json);
}

fn push_change(list: &mut String, table: &TableName, op: &str, key: &str, row: &str, lsn: Lsn, own: bool) {
    let mut name = String::new();
    write_string(&table.to_string(), &mut name);
    append(
        list,
        &format!(r#"{{"table":{name},"op":"{op}","key":{key},"row":{row},"lsn":"{lsn}","own":{own}}}"#),
    );
}

/// The row, with `"own":true` as its first member where the reader wrote it.
fn flagged(row: &str, own: bool) -> Cow<'_, str> {
    match row.strip_prefix('{') {
        _ if !own => row.into(),
        Some("}") | None => r#"{"own":true}"#.into(),
        Some(rest) => format!(r#"{{"own":true,{rest}"#).into(),
    }
}

fn id_of(key: &str) -> Result<&str, LogError> {
    let key: IdKey<'_> = serde_json::from_str(key)
        .map_err(|_| LogError::Corrupt("the key of a deleted message or user has no id".to_owned()))?;
    Ok(key.id.get())
}

#[cfg(test)]
mod tests {
    use posduif_model::Change;
    use serde_json::{Value, json};

    use super::*;

    fn last(table: &str, op: Op, key: &str, row: &str, own: bool) -> FinalChange {
        let change = Change { op, table: table.parse().unwrap(), key: key.into(), row: row.into() };
        FinalChange { position: "16-0".parse().unwrap(), change, own }
    }

    fn finished(body: Body) -> Value {
        let tail = Tail {
            cursor: "c".into(),
            lsn: Lsn::new(32),
            has_more: true,
            snapshot: false,
            sync_timestamp: DateTime::UNIX_EPOCH,
        };
        serde_json::from_str(&body.finish(&tail)).unwrap()
    }

    #[test]
    fn an_empty_page_has_all_members_of_the_contract() {
        let expected = json!({
            "messages": [], "users": [], "changes": [], "deleted": {"messages": [], "users": []},
            "cursor": "c", "lsn": "0/20", "has_more": true, "snapshot": false, "compressed": false,
            "sync_timestamp": "1970-01-01T00:00:00.000Z",
        });
        assert_eq!(finished(Body::default()), expected);
    }

    #[test]
    fn every_kind_of_change_finds_its_list() {
        let mut body = Body::default();
        for change in [
            last("messages", Op::Put, r#"{"id":"m1"}"#, r#"{"id":"m1","content":"a"}"#, true),
            last("messages", Op::Put, r#"{"id":"m2"}"#, r#"{"id":"m2"}"#, false),
            last("messages", Op::Delete, r#"{"id":"m3"}"#, "", false),
            last("users", Op::Put, r#"{"id":"u1"}"#, r#"{"id":"u1"}"#, false),
            last("users", Op::Delete, r#"{"id":"u2"}"#, "", false),
            last("s.ta\"sks", Op::Put, r#"{"k":1}"#, r#"{"k":1,"v":2}"#, true),
            last("tasks", Op::Delete, r#"{"k":2}"#, "", false),
            last("users", Op::Truncate, "", "", false),
        ] {
            body.push_final(&change).unwrap();
        }
        body.push_row(&"users".parse().unwrap(), "", r#"{"id":"u3"}"#, Lsn::ZERO);
        let page = finished(body);
        assert_eq!(page["messages"], json!([{"own": true, "id": "m1", "content": "a"}, {"id": "m2"}]));
        assert_eq!(page["users"], json!([{"id": "u1"}, {"id": "u3"}]));
        assert_eq!(page["deleted"], json!({"messages": ["m3"], "users": ["u2"]}));
        let changes = json!([
            {"table": "s.ta\"sks", "op": "upsert", "key": {"k": 1}, "row": {"k": 1, "v": 2}, "lsn": "0/10", "own": true},
            {"table": "public.tasks", "op": "delete", "key": {"k": 2}, "row": null, "lsn": "0/10", "own": false},
            {"table": "public.users", "op": "truncate", "key": null, "row": null, "lsn": "0/10", "own": false},
        ]);
        assert_eq!(page["changes"], changes);
    }

    #[test]
    fn a_deleted_message_without_an_id_is_an_error() {
        let change = last("messages", Op::Delete, r#"{"k":"m3"}"#, "", false);
        assert!(matches!(Body::default().push_final(&change), Err(LogError::Corrupt(_))));
    }
}
