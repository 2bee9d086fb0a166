//! One page's operations in, rows in the local tables out, within the transaction of the whole catch-up.

use posduif_model::table::quote_identifier as quoted;
use rusqlite::{Connection, params_from_iter, types::Value};

use super::{
    hold::{held, key_is, overwrite, truncate},
    triggers::{base_name, columns},
};
use crate::{
    error::Result,
    page::{Operation, Page},
    table::Table,
};

/// Applies the page and returns the number of its operations.
pub(super) fn page(tx: &Connection, page: &Page<'_>, tables: &[Table]) -> Result<usize> {
    let operations = page.operations(tables)?.list;
    for operation in &operations {
        match operation {
            Operation::Truncate { table } => truncate(tx, table)?,
            Operation::Put { table, row } => put(tx, table, row)?,
            Operation::Delete { table, key } => delete(tx, table, key)?,
        }
    }
    Ok(operations.len())
}

fn put(tx: &Connection, table: &Table, row: &[Value]) -> Result<()> {
    let key: Vec<Value> = table
        .primary_key
        .iter()
        .filter_map(|name| table.columns.iter().zip(row).find(|(column, _)| column.name == *name))
        .map(|(_, value)| value.clone())
        .collect();
    let all = columns(table.columns.iter(), "");
    let places = (1..=row.len()).map(|place| format!("?{place}")).collect::<Vec<_>>().join(", ");
    if !held(tx, table, &key)? {
        let (name, overwrite) = (quoted(&table.local_name), overwrite(table, ""));
        let sql = format!("INSERT INTO {name} ({all}) VALUES ({places}) {overwrite}");
        tx.prepare_cached(&sql)?.execute(params_from_iter(row))?;
        return Ok(());
    }
    let (base, overwrite) = (base_name(table), overwrite(table, ", posduif_present = 1"));
    let sql = format!("INSERT INTO {base} ({all}, posduif_present) VALUES ({places}, 1) {overwrite}");
    tx.prepare_cached(&sql)?.execute(params_from_iter(row))?;
    Ok(())
}

fn delete(tx: &Connection, table: &Table, key: &[Value]) -> Result<()> {
    if !held(tx, table, key)? {
        let sql = format!("DELETE FROM {} WHERE {}", quoted(&table.local_name), key_is(table));
        tx.prepare_cached(&sql)?.execute(params_from_iter(key))?;
        return Ok(());
    }
    let gone = format!("UPDATE {} SET posduif_present = 0 WHERE {}", base_name(table), key_is(table));
    tx.prepare_cached(&gone)?.execute(params_from_iter(key))?;
    Ok(())
}
