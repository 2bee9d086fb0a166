//! A row to be written in, the table changed out, or why it was not.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use posduif_model::{
    TableName, UserId,
    rule::RuleSet,
    value::{JsonForm, write_string},
};

use super::{
    change::{RowOp, RowWrite},
    input,
    outcome::Outcome,
    upload::Refusal,
};
use crate::{
    code::Code,
    store::{
        StoreError, columns,
        row_versions::{self, Version},
        winners::Wanted,
        writable::{NewRow, WritableTable},
    },
};

/// The tables of an upload that devices write, as they are now; an error where one does not fit its declaration.
pub type Tables = BTreeMap<TableName, Result<WritableTable, Refusal>>;

/// Looks the tables of these rows up; one that does not exist is not among them.
pub async fn tables(
    transaction: &Transaction<'_>,
    rules: &RuleSet,
    rows: impl Iterator<Item = &RowWrite>,
) -> Result<Tables, StoreError> {
    let mut names: Vec<&TableName> = rows.map(|row| &row.table).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Ok(Tables::new());
    }
    let (found, types) = columns::load(transaction, names.into_iter()).await?;
    let bind = |(name, columns): (TableName, Vec<columns::WrittenColumn>)| {
        let declaration = rules.find(&name)?;
        let write = declaration.write.as_ref()?;
        let bound = WritableTable::bind(declaration, write, &columns, &types).ok_or_else(|| {
            tracing::error!(table = %name, "a table is not as its declaration in sync.tables needs it");
            Refusal::new(
                Code::InternalError,
                "the table is not as its declaration needs it; the server's log tells more",
            )
        });
        Some((name, bound))
    };
    Ok(found.into_iter().filter_map(bind).collect())
}

/// Writes a row as the user's own, if its version is the newest.
pub async fn apply(
    transaction: &Transaction<'_>,
    tables: &Tables,
    rules: &RuleSet,
    write: &RowWrite,
    owner: UserId,
    version: &Version<'_>,
) -> Result<Outcome, StoreError> {
    let table = match tables.get(&write.table) {
        None => return Ok(Outcome::refused(Code::NotFound, "no table of this name is synced")),
        Some(Err(refusal)) => return Ok(Outcome::Refused(refusal.clone())),
        Some(Ok(table)) => table,
    };
    let json = match record(table, write) {
        Ok(json) if json.len() > rules.max_row_bytes() => {
            let most = rules.max_row_bytes();
            let error = format!("a row has at most {most} bytes of JSON, else nobody would see it");
            return Ok(Outcome::refused(Code::ValidationError, error));
        }
        Ok(json) => json,
        Err(refusal) => return Ok(Outcome::Refused(refusal)),
    };
    let columns: Vec<&str> = write.columns.keys().map(String::as_str).collect();
    let row = NewRow { json: &json, columns: &columns, owner };
    let standing = table.judge(transaction, &row, version).await?;
    if standing.is_present && !standing.is_own {
        return Ok(Outcome::Refused(Refusal::no_such_row()));
    }
    let lost = || Outcome::Lost(Wanted { table: write.table.clone(), condition: table.condition(&json) });
    match (write.op, standing.is_present, standing.wins) {
        (RowOp::Delete, false, _) => {
            if standing.is_buried {
                row_versions::raise(transaction, table.name(), &standing.key, owner, version).await?;
            }
        }
        (RowOp::Update, false, _) => return Ok(Outcome::Refused(Refusal::no_such_row())),
        (_, _, false) => return Ok(lost()),
        (RowOp::Delete, true, true) => table.delete(transaction, &row, &standing.key, version).await?,
        (RowOp::Upsert, false, true) => table.insert(transaction, &row, version).await?,
        (RowOp::Upsert | RowOp::Update, true, true) => table.update(transaction, &row, version).await?,
    }
    Ok(Outcome::Applied)
}

/// The JSON object that the statements read, with every value as PostgreSQL takes it.
fn record(table: &WritableTable, write: &RowWrite) -> Result<String, Refusal> {
    let is_whole = table.key().len() == write.key.len()
        && table
            .key()
            .iter()
            .all(|(name, _)| write.key.get(name).is_some_and(|value| value.trim() != "null"));
    if !is_whole {
        let names: Vec<&str> = table.key().iter().map(|(name, _)| name.as_str()).collect();
        return Err(Refusal::invalid(format!(
            "the key of {} is {}, whole and nothing else",
            table.name(),
            names.join(", ")
        )));
    }
    let mut json = String::from("{");
    for (name, form) in table.key().iter().chain(table.granted()) {
        let value = write.key.get(name).or_else(|| write.columns.get(name));
        let Some(value) = value else { continue };
        member(name, form, value, &mut json)?;
    }
    json.push('}');
    Ok(json)
}

fn member(name: &str, form: &JsonForm, value: &str, json: &mut String) -> Result<(), Refusal> {
    if json.len() > 1 {
        json.push(',');
    }
    write_string(name, json);
    json.push(':');
    input::write(form, value, json).map_err(|error| Refusal::invalid(format!("{name} {error}")))
}
