//! One incoming page in, typed operations on local tables out.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use posduif_model::{Lsn, TableName};
use rusqlite::types::Value;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    error::{Error, Result},
    table::{Column, List, Table},
};

type Row<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// A page of `GET /api/sync/incoming`; keys that this version does not know are ignored.
#[derive(Debug, Deserialize)]
pub(crate) struct Page<'a> {
    pub cursor: String,
    #[serde(default)]
    pub lsn: Option<Lsn>,
    pub has_more: bool,
    #[serde(default)]
    pub snapshot: bool,
    #[serde(borrow, default)]
    messages: Vec<Row<'a>>,
    #[serde(borrow, default)]
    users: Vec<Row<'a>>,
    #[serde(borrow, default)]
    changes: Vec<Change<'a>>,
    #[serde(borrow, default)]
    deleted: Deleted<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct Deleted<'a> {
    #[serde(borrow, default)]
    messages: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    users: Vec<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct Change<'a> {
    table: TableName,
    op: Op,
    #[serde(borrow, default)]
    key: Option<Row<'a>>,
    #[serde(borrow, default)]
    row: Option<Row<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Upsert,
    Delete,
    Truncate,
}

/// What a page does to one local table.
#[derive(Debug, PartialEq)]
pub(crate) enum Operation<'t> {
    Truncate {
        table: &'t Table,
    },
    /// The whole row, one value per column of the table.
    Put {
        table: &'t Table,
        row: Vec<Value>,
    },
    /// The row of this key is gone.
    Delete {
        table: &'t Table,
        key: Vec<Value>,
    },
}

/// A page's operations in the order in which they apply.
#[derive(Debug, PartialEq)]
pub(crate) struct Operations<'t> {
    pub list: Vec<Operation<'t>>,
    /// Tables that the page names and the device does not keep.
    pub unknown: BTreeSet<String>,
}

impl<'a> Page<'a> {
    pub fn parse(body: &'a [u8]) -> Result<Self> {
        serde_json::from_slice(body).map_err(|error| Error::unreadable("incoming page", &error))
    }

    /// Types every value of the page. An error means that the page cannot be applied and must not be staged.
    pub fn operations<'t>(&self, tables: &'t [Table]) -> Result<Operations<'t>> {
        let mut operations = Operations { list: Vec::new(), unknown: BTreeSet::new() };
        let truncates = |change: &&Change| change.op == Op::Truncate;
        for change in self.changes.iter().filter(truncates) {
            match named(tables, &change.table) {
                Some(table) => operations.list.push(Operation::Truncate { table }),
                None => {
                    operations.unknown.insert(change.table.to_string());
                }
            }
        }
        let lists = [
            (List::Messages, "messages", &self.messages, &self.deleted.messages),
            (List::Users, "users", &self.users, &self.deleted.users),
        ];
        for (list, name, rows, deleted) in lists {
            let Some(table) = tables.iter().find(|table| table.list == Some(list)) else {
                if !rows.is_empty() || !deleted.is_empty() {
                    operations.unknown.insert(name.to_owned());
                }
                continue;
            };
            for row in rows {
                operations.list.push(Operation::Put { table, row: typed_row(table, row)? });
            }
            for id in deleted {
                let key =
                    table.key_columns().map(|column| typed(table, column, id)).collect::<Result<_>>()?;
                operations.list.push(Operation::Delete { table, key });
            }
        }
        for change in self.changes.iter().filter(|change| !truncates(change)) {
            let Some(table) = named(tables, &change.table) else {
                operations.unknown.insert(change.table.to_string());
                continue;
            };
            operations.list.push(change.operation(table)?);
        }
        Ok(operations)
    }
}

impl Change<'_> {
    fn operation<'t>(&self, table: &'t Table) -> Result<Operation<'t>> {
        let lacks =
            |what| Error::Protocol(format!("incoming page: a change of {} has no {what}", table.name));
        match self.op {
            Op::Truncate => Ok(Operation::Truncate { table }),
            Op::Upsert => {
                let row = self.row.as_ref().ok_or_else(|| lacks("row"))?;
                Ok(Operation::Put { table, row: typed_row(table, row)? })
            }
            Op::Delete => {
                let key = self.key.as_ref().ok_or_else(|| lacks("key"))?;
                Ok(Operation::Delete { table, key: typed_key(table, key)? })
            }
        }
    }
}

fn named<'t>(tables: &'t [Table], name: &TableName) -> Option<&'t Table> {
    tables.iter().find(|table| table.name == *name)
}

fn typed_row(table: &Table, row: &Row) -> Result<Vec<Value>> {
    typed_key(table, row)?;
    let value = |column: &Column| match row.get(column.name.as_str()) {
        Some(raw) => typed(table, column, raw),
        None => Ok(Value::Null),
    };
    table.columns.iter().map(value).collect()
}

fn typed_key(table: &Table, row: &Row) -> Result<Vec<Value>> {
    let value = |column: &Column| match row.get(column.name.as_str()) {
        Some(raw) => typed(table, column, raw),
        None => Ok(Value::Null),
    };
    let key = table.key_columns().map(value).collect::<Result<Vec<_>>>()?;
    if key.contains(&Value::Null) {
        return Err(Error::Protocol(format!("incoming page: a row of {} has no key", table.name)));
    }
    Ok(key)
}

fn typed(table: &Table, column: &Column, raw: &RawValue) -> Result<Value> {
    column.stored(raw).ok_or_else(|| {
        Error::Protocol(format!("incoming page: {}.{} does not fit its type", table.name, column.name))
    })
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
             "columns":[{"name":"a","type":"INTEGER"},{"name":"b","type":"TEXT"},{"name":"c","type":"BLOB"}]}]}"#;
        Instructions::parse(body).unwrap().tables
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn truncates_come_first_whatever_their_place() {
        let body =
            br#"{"cursor":"c","has_more":false,"messages":[{"id":"m","content":"x","own":true,"new":1}],
            "changes":[{"table":"tasks","op":"upsert","row":{"a":"7","b":"k","c":"AA=="}},
                       {"table":"public.messages","op":"truncate"},
                       {"table":"public.tasks","op":"delete","key":{"a":8,"b":"k"},"own":true}],
            "deleted":{"messages":["n"]},"weather":"fine"}"#;
        let tables = tables();
        let [messages, tasks] = tables.as_slice() else { panic!() };
        let operations = Page::parse(body).unwrap().operations(&tables).unwrap();
        assert!(operations.unknown.is_empty());
        assert_eq!(
            operations.list,
            [
                Operation::Truncate { table: messages },
                Operation::Put { table: messages, row: vec![text("m"), text("x")] },
                Operation::Delete { table: messages, key: vec![text("n")] },
                Operation::Put {
                    table: tasks,
                    row: vec![Value::Integer(7), text("k"), Value::Blob(vec![0])],
                },
                Operation::Delete { table: tasks, key: vec![Value::Integer(8), text("k")] },
            ]
        );
    }

    #[test]
    fn an_unknown_table_is_reported_and_skipped() {
        let tables = tables();
        for (body, name) in [
            (
                &br#"{"cursor":"c","has_more":false,"changes":[{"table":"x","op":"upsert","row":{"q":1}}]}"#
                    [..],
                "public.x",
            ),
            (br#"{"cursor":"c","has_more":false,"users":[{"id":"u"}]}"#, "users"),
            (br#"{"cursor":"c","has_more":false,"deleted":{"users":["u"]}}"#, "users"),
        ] {
            let operations = Page::parse(body).unwrap().operations(&tables).unwrap();
            assert_eq!(operations, Operations { list: vec![], unknown: BTreeSet::from([name.to_owned()]) });
        }
    }

    #[test]
    fn a_page_that_cannot_be_applied_is_an_error_and_not_a_skipped_row() {
        let tables = tables();
        for body in [
            &br#"{"cursor":"c","has_more":false,"messages":[{"content":"no key"}]}"#[..],
            br#"{"cursor":"c","has_more":false,"changes":[{"table":"tasks","op":"upsert"}]}"#,
            br#"{"cursor":"c","has_more":false,"changes":[{"table":"tasks","op":"delete","key":{"a":1}}]}"#,
            br#"{"cursor":"c","has_more":false,"changes":[{"table":"tasks","op":"upsert","row":{"a":1,"b":"k","c":"?"}}]}"#,
        ] {
            assert!(matches!(Page::parse(body).unwrap().operations(&tables), Err(Error::Protocol(_))));
        }
        for body in
            [&b"{}"[..], b"<html>", br#"{"cursor":"c"}"#, br#"{"cursor":"c","has_more":false,"lsn":"x"}"#]
        {
            assert!(matches!(Page::parse(body), Err(Error::Protocol(_))));
        }
    }
}
