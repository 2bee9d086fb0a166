//! A change of a row as a device sends it in, what is to be written of it out; what is not granted is refused here.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use posduif_accounts::username;
use posduif_model::{
    TableName, UserId,
    rule::{RuleSet, WriteDeclaration},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    message, moment,
    upload::{Action, Refusal},
};
use crate::code::Code;

/// A row to be written as the device's own user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowWrite {
    pub table: TableName,
    pub op: RowOp,
    /// The JSON of each value.
    pub key: BTreeMap<String, String>,
    /// The JSON of each granted column that was sent.
    pub columns: BTreeMap<String, String>,
    /// Its version, where the device told one.
    pub version: Option<DateTime<Utc>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOp {
    Upsert,
    /// Like an upsert, but a row that is not there is not made.
    Update,
    Delete,
}

/// Who writes, when, and what the rules let it.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    pub user: UserId,
    pub now: DateTime<Utc>,
    pub rules: &'a RuleSet,
}

/// A row that was written on the device.
#[derive(Deserialize, ToSchema)]
#[schema(as = SentChange)]
pub(super) struct Change<'a> {
    #[schema(value_type = String)]
    table: TableName,
    #[schema(inline)]
    op: Op,
    /// The whole primary key.
    #[serde(borrow)]
    #[schema(value_type = Object)]
    key: BTreeMap<String, &'a RawValue>,
    /// Granted columns and the version; of a deletion the version alone.
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    row: Option<BTreeMap<String, &'a RawValue>>,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Op {
    Upsert,
    Delete,
}

/// Reads an item of `changes`.
pub fn parse(json: &str, writer: &Writer<'_>) -> Result<Action, Refusal> {
    let change: Change<'_> =
        serde_json::from_str(json).map_err(|error| Refusal::unreadable("a change", &error))?;
    let write = writer.grant(&change.table)?;
    let op = match (change.op, is_built_in(&change.table)) {
        (Op::Upsert, Some("messages")) => return message_of(&change, writer),
        (Op::Upsert, Some(_)) => RowOp::Update,
        (Op::Upsert, None) => RowOp::Upsert,
        (Op::Delete, Some(name)) => {
            return Err(Refusal::new(Code::Forbidden, format!("devices do not delete rows of {name}")));
        }
        (Op::Delete, None) => RowOp::Delete,
    };
    Ok(Action::Write(row_write(change.table, op, change.key, change.row.unwrap_or_default(), write, writer)?))
}

/// Reads an item of `users`: the user's row with its `id` among the columns.
pub fn user(json: &str, writer: &Writer<'_>) -> Result<Action, Refusal> {
    let mut row: BTreeMap<String, &RawValue> =
        serde_json::from_str(json).map_err(|error| Refusal::unreadable("a user", &error))?;
    let table = built_in("users")?;
    let write = writer.grant(&table)?;
    let id = row.remove("id").ok_or_else(|| Refusal::invalid("a user needs its id"))?;
    let key = BTreeMap::from([("id".to_owned(), id)]);
    Ok(Action::Write(row_write(table, RowOp::Update, key, row, write, writer)?))
}

/// The name of one of the messenger's own tables, whose rows have rules beside the declared ones.
fn is_built_in(table: &TableName) -> Option<&str> {
    (table.schema() == "public" && ["messages", "users"].contains(&table.name())).then(|| table.name())
}

fn built_in(name: &str) -> Result<TableName, Refusal> {
    TableName::new("public", name).map_err(|error| Refusal::new(Code::InternalError, error.to_string()))
}

/// A message that stands among the changes.
fn message_of(change: &Change<'_>, writer: &Writer<'_>) -> Result<Action, Refusal> {
    let mut members = change.row.clone().unwrap_or_default();
    for (name, value) in &change.key {
        same(members.insert(name.clone(), value), value)?;
    }
    let known = ["id", "sender_id", "recipient_id", "content", "created_at", "updated_at"];
    if members.keys().any(|name| !known.contains(&name.as_str())) {
        let granted = known.join(", ");
        return Err(Refusal::new(
            Code::Forbidden,
            format!("of a message devices write {granted} and nothing else"),
        ));
    }
    let json = serde_json::to_string(&members).map_err(|error| Refusal::unreadable("a message", &error))?;
    Ok(Action::Send(message::parse(&json, writer.user, writer.now)?))
}

impl<'a> Writer<'a> {
    /// What devices may write of a table.
    pub fn grant(&self, table: &TableName) -> Result<&'a WriteDeclaration, Refusal> {
        let declaration = self
            .rules
            .find(table)
            .ok_or_else(|| Refusal::new(Code::NotFound, "no table of this name is synced"))?;
        let read_only = || Refusal::new(Code::Forbidden, format!("{table} is read-only for devices"));
        declaration.write.as_ref().ok_or_else(read_only)
    }

    /// That the messenger's messages may be written.
    pub fn grants_messages(&self) -> Result<(), Refusal> {
        self.grant(&built_in("messages")?).map(drop)
    }
}

fn row_write(
    table: TableName,
    op: RowOp,
    key: BTreeMap<String, &RawValue>,
    row: BTreeMap<String, &RawValue>,
    write: &WriteDeclaration,
    writer: &Writer<'_>,
) -> Result<RowWrite, Refusal> {
    // Where the owner is part of the key, another one names another user's row.
    if key.get(&write.owner).is_some_and(|owner| !is_user(owner, writer.user)) {
        return Err(Refusal::no_such_row());
    }
    let (mut columns, mut version) = (BTreeMap::new(), None);
    for (name, value) in row {
        if let Some(of_key) = key.get(&name) {
            same(Some(value), of_key)?;
        } else if name == write.version {
            version = told(value, &name, writer.now)?;
        } else if name == write.owner {
            if !is_user(value, writer.user) {
                let error = format!("{name} can only be the device's own user");
                return Err(Refusal::new(Code::Forbidden, error));
            }
        } else if write.columns.contains(&name) && op != RowOp::Delete {
            columns.insert(name, value.get().to_owned());
        } else {
            return Err(not_granted(&table, op, write));
        }
    }
    if is_built_in(&table) == Some("users") {
        check_username(&columns)?;
    }
    let key = key.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect();
    Ok(RowWrite { table, op, key, columns, version })
}

fn not_granted(table: &TableName, op: RowOp, write: &WriteDeclaration) -> Refusal {
    let (owner, version) = (&write.owner, &write.version);
    let error = match op {
        RowOp::Delete => format!("the row of a deletion holds {version} and nothing else"),
        RowOp::Upsert | RowOp::Update => {
            let granted = write.columns.join(", ");
            format!(
                "of {table} devices write {granted}, with the key, {owner} and {version}, and nothing else"
            )
        }
    };
    Refusal::new(Code::Forbidden, error)
}

/// A value that is told twice must be told alike; the number 7 and the string "7" are.
fn same(one: Option<&RawValue>, other: &RawValue) -> Result<(), Refusal> {
    let text = |value: &RawValue| {
        let json = value.get();
        serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned())
    };
    match one {
        Some(one) if text(one) != text(other) => {
            Err(Refusal::invalid("the row has another key than the item"))
        }
        _ => Ok(()),
    }
}

fn is_user(value: &RawValue, user: UserId) -> bool {
    serde_json::from_str::<String>(value.get()).is_ok_and(|text| text.parse() == Ok(user))
}

fn told(value: &RawValue, name: &str, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, Refusal> {
    let text: Option<String> = serde_json::from_str(value.get())
        .map_err(|_| Refusal::invalid(format!("{name} is not a string that holds a time")))?;
    text.map(|text| moment::parse(&text, name, now)).transpose()
}

/// A name that enrolment would not take is not taken here either.
fn check_username(columns: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let Some(json) = columns.get("username") else { return Ok(()) };
    let name: String =
        serde_json::from_str(json).map_err(|_| Refusal::invalid("username is not a string"))?;
    match username::parse(&name) {
        Ok(parsed) if parsed == name => Ok(()),
        Ok(_) => Err(Refusal::invalid("a username has no white space at its ends")),
        Err(error) => Err(Refusal::invalid(error.to_string())),
    }
}
