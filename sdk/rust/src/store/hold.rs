//! Local versions that the server has not shown back yet, and the server's versions below them.
//!
//! A row with an outbox entry shows the local write. What the server has for that key is kept in
//! `posduif_base_<table>` (`posduif_present` = 0: no such row): saved by the trigger of the first local write,
//! replaced by whatever sync brings. When the last entry of the key is settled or rejected, the saved version
//! takes the row's place. So a row never flickers back to an older version, and what shows through afterwards
//! is the state of the same commit as all other rows.

use posduif_model::{Lsn, table::quote_identifier as quoted};
use rusqlite::{Connection, params_from_iter, types::Value};

use super::triggers::{base_name, columns, key_json, same_key};
use crate::{error::Result, table::Table};

/// `k1 = ?1 AND k2 = ?2` for the table's key.
pub(super) fn key_is(table: &Table) -> String {
    let names = table.key_columns().map(|column| quoted(&column.name));
    names.zip(1..).map(|(name, place)| format!("{name} = ?{place}")).collect::<Vec<_>>().join(" AND ")
}

/// Whether a local version covers the row of this key.
pub(super) fn held(tx: &Connection, table: &Table, key: &[Value]) -> Result<bool> {
    let sql = format!("SELECT 1 FROM {} WHERE {}", base_name(table), key_is(table));
    Ok(tx.prepare_cached(&sql)?.exists(params_from_iter(key))?)
}

/// Takes the newest known server version away from every row, below local versions too.
pub(super) fn truncate(tx: &Connection, table: &Table) -> Result<()> {
    let (name, base) = (quoted(&table.local_name), base_name(table));
    let same_key = same_key(table, "b", &name);
    tx.execute(
        &format!("DELETE FROM {name} WHERE NOT EXISTS (SELECT 1 FROM {base} b WHERE {same_key})"),
        [],
    )?;
    tx.execute(&format!("UPDATE {base} SET posduif_present = 0"), [])?;
    Ok(())
}

/// Removes every upload whose commit the device has seen when it has seen everything up to `lsn`.
///
/// That a row came back as the device's own settles nothing: it may be an earlier upload of the same row whose
/// answer was lost, and a receipt is only an upper bound of its commit.
pub(super) fn settle_up_to(tx: &Connection, lsn: Lsn) -> Result<()> {
    tx.execute("DELETE FROM posduif_outbox WHERE state = 'sent' AND receipt <= ?1", [receipt(lsn)])?;
    Ok(())
}

/// An LSN as text that sorts as the number does: the column has no unsigned 64-bit integers.
pub(super) fn receipt(lsn: Lsn) -> String {
    format!("{:016X}", lsn.get())
}

/// Shows the server's version of every row that no outbox entry covers any more. Call it as sync (`applying`).
pub(super) fn release(tx: &Connection, tables: &[Table]) -> Result<()> {
    for table in tables {
        let (name, base) = (quoted(&table.local_name), base_name(table));
        let free = format!(
            r#"NOT EXISTS (SELECT 1 FROM posduif_outbox o WHERE o."table" = ?1 AND o.key = {})"#,
            key_json(table, &base)
        );
        let same_key = same_key(table, &base, &name);
        let all = columns(table.columns.iter(), "");
        let overwrite = overwrite(table, "");
        for statement in [
            format!(
                "DELETE FROM {name} WHERE EXISTS (SELECT 1 FROM {base} WHERE {same_key} AND NOT posduif_present AND {free})"
            ),
            format!(
                "INSERT INTO {name} ({all}) SELECT {all} FROM {base} WHERE posduif_present AND {free} {overwrite}"
            ),
            format!("DELETE FROM {base} WHERE {free}"),
        ] {
            tx.prepare_cached(&statement)?.execute([table.name.to_string()])?;
        }
    }
    Ok(())
}

/// The end of an INSERT that puts whole rows. An update in place, unlike REPLACE, leaves alone what the
/// application hung on the row.
pub(super) fn overwrite(table: &Table, and: &str) -> String {
    let names = table.columns.iter().map(|column| quoted(&column.name));
    let sets: Vec<_> = names.map(|name| format!("{name} = excluded.{name}")).collect();
    format!("ON CONFLICT ({}) DO UPDATE SET {}{and}", columns(table.key_columns(), ""), sets.join(", "))
}
