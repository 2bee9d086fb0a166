//! One page's operations in, rows in the local tables out, within the transaction of the whole catch-up.

use posduif_model::table::quote_identifier as quoted;
use rusqlite::{Connection, params_from_iter, types::Value};

use super::{
    hold::{held, key_is, overwrite, settle_own, truncate},
    triggers::{base_name, columns},
};
use crate::{
    error::Result,
    instructions::Table,
    page::{Operation, Page},
};

/// Applies the page and returns the number of its operations.
pub(super) fn page(tx: &Connection, page: &Page<'_>, tables: &[Table]) -> Result<usize> {
    let operations = page.operations(tables)?.list;
    for operation in &operations {
        match operation {
            Operation::Truncate { table } => truncate(tx, table)?,
            Operation::Put { table, row, own } => put(tx, table, row, *own)?,
            Operation::Delete { table, key, own } => delete(tx, table, key, *own)?,
        }
    }
    Ok(operations.len())
}

fn put(tx: &Connection, table: &Table, row: &[Value], own: bool) -> Result<()> {
    let key: Vec<Value> = table
        .primary_key
        .iter()
        .filter_map(|name| table.columns.iter().zip(row).find(|(column, _)| column.name == *name))
        .map(|(_, value)| value.clone())
        .collect();
    let all = columns(table.columns.iter(), "");
    let places = (1..=row.len()).map(|place| format!("?{place}")).collect::<Vec<_>>().join(", ");
    let Some(key_json) = held(tx, table, &key)? else {
        let (name, overwrite) = (quoted(&table.local_name), overwrite(table, ""));
        let sql = format!("INSERT INTO {name} ({all}) VALUES ({places}) {overwrite}");
        tx.prepare_cached(&sql)?.execute(params_from_iter(row))?;
        return Ok(());
    };
    let (base, overwrite) = (base_name(table), overwrite(table, ", posduif_present = 1"));
    let sql = format!("INSERT INTO {base} ({all}, posduif_present) VALUES ({places}, 1) {overwrite}");
    tx.prepare_cached(&sql)?.execute(params_from_iter(row))?;
    if own { settle_own(tx, table, &key_json) } else { Ok(()) }
}

fn delete(tx: &Connection, table: &Table, key: &[Value], own: bool) -> Result<()> {
    let Some(key_json) = held(tx, table, key)? else {
        let sql = format!("DELETE FROM {} WHERE {}", quoted(&table.local_name), key_is(table));
        tx.prepare_cached(&sql)?.execute(params_from_iter(key))?;
        return Ok(());
    };
    let gone = format!("UPDATE {} SET posduif_present = 0 WHERE {}", base_name(table), key_is(table));
    tx.prepare_cached(&gone)?.execute(params_from_iter(key))?;
    if own { settle_own(tx, table, &key_json) } else { Ok(()) }
}
