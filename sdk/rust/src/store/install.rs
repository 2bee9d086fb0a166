//! App instructions in, local tables with their triggers out.
//!
//! Beyond the primary key the tables have no constraint: a catch-up replays rows in an order in which others
//! would fail. A change of the rules is always followed by a snapshot, so a table is altered without moving data.

use std::collections::BTreeSet;

use chrono::Utc;
use posduif_model::table::quote_identifier as quoted;
use rusqlite::{Connection, OptionalExtension};

use super::{
    Store,
    outbox::list_rejected,
    staging::start_over,
    state,
    triggers::{self, base_name, columns},
};
use crate::{
    error::{Error, Result},
    instructions::{Instructions, SkippedTable},
    table::{List, Table},
};

impl Store {
    /// Creates or alters the tables to what the server says now. Returns whether they hold other rows than before;
    /// if so, the device has begun a resync.
    pub fn install(&mut self, instructions: &Instructions) -> Result<bool> {
        let before = state::get::<String>(&self.conn, "rules")?;
        let installed = self.tables()?;
        self.write(|tx| {
            state::set(tx, "batch_size", instructions.sync_config.batch_size)?;
            state::set(tx, "sync_interval", instructions.sync_config.sync_interval_seconds)?;
            state::set(tx, "instructed_at", Utc::now().timestamp())?;
            tx.execute("DELETE FROM posduif_state WHERE name = 'stale'", [])?;
            let mut skipped = instructions.skipped.clone();
            let same_rules = before.as_deref() == Some(&instructions.rules);
            let mut changed = false;
            if !same_rules || installed != instructions.tables {
                let tables = replace(tx, &installed, &instructions.tables, &mut skipped)?;
                changed = !same_rules || !same_rows(&installed, &tables);
                state::set(tx, "rules", &instructions.rules)?;
                state::set(tx, "tables", serde_json::json!(tables).to_string())?;
            }
            state::set(tx, "skipped", serde_json::json!(skipped).to_string())?;
            if changed {
                start_over(tx)?;
            }
            Ok(changed)
        })
    }
}

/// Whether the tables hold the same rows; what a device may write to them does not matter.
fn same_rows(before: &[Table], after: &[Table]) -> bool {
    let rows = |tables: &[Table]| {
        tables.iter().map(|table| Table { write: None, ..table.clone() }).collect::<Vec<_>>()
    };
    rows(before) == rows(after)
}

/// Makes the installed tables the announced ones; returns those that could be made.
fn replace(
    tx: &Connection,
    installed: &[Table],
    announced: &[Table],
    skipped: &mut Vec<SkippedTable>,
) -> Result<Vec<Table>> {
    state::set(tx, "applying", 1)?;
    let mut survivors = Vec::with_capacity(installed.len());
    for old in installed {
        drop_triggers(tx, old)?;
        let new = announced.iter().find(|new| continues(old, new));
        match new.map(|new| has_room_for(tx, new)).transpose()? {
            Some(true) => survivors.push(old),
            Some(false) | None => remove(tx, old)?,
        }
    }
    let user = state::user_id(tx)?.to_string();
    let mut tables = Vec::with_capacity(announced.len());
    for new in announced {
        tx.execute_batch("SAVEPOINT posduif_table")?;
        let made = make(tx, new, &survivors, &user);
        let kept = match made {
            Ok(()) => true,
            Err(Error::Store(error)) if is_about_statement(&error) => {
                let reason = error.to_string();
                if new.list.is_some() {
                    return Err(Error::Unusable(format!("{} cannot be kept here: {reason}", new.name)));
                }
                tx.execute_batch("ROLLBACK TO posduif_table")?;
                tracing::warn!(table = %new.name, reason, "a table is left out");
                skipped.push(SkippedTable { table: new.name.to_string(), reason });
                false
            }
            Err(error) => return Err(error),
        };
        tx.execute_batch("RELEASE posduif_table")?;
        if kept {
            tables.push(new.clone());
        } else if let Some(old) = survivors.iter().find(|old| continues(old, new)) {
            remove(tx, old)?;
        }
    }
    state::set(tx, "applying", 0)?;
    Ok(tables)
}

/// Whether SQLite refuses what it was asked, such as a name that the application took, whatever the disk's state.
fn is_about_statement(error: &rusqlite::Error) -> bool {
    let error = match error {
        rusqlite::Error::SqlInputError { error, .. } => error,
        rusqlite::Error::SqliteFailure(error, _) => error,
        _ => return false,
    };
    error.extended_code == rusqlite::ffi::SQLITE_ERROR
}

fn make(tx: &Connection, table: &Table, installed: &[&Table], user: &str) -> Result<()> {
    create(tx, table, user)?;
    blank(tx, table, installed)?;
    tx.execute_batch(&triggers::create(table))?;
    Ok(())
}

/// Whether the old table's rows can live on in the new one.
fn continues(old: &Table, new: &Table) -> bool {
    let same_types = old
        .columns
        .iter()
        .all(|column| new.column(&column.name).is_none_or(|other| other.affinity == column.affinity));
    old.name == new.name
        && old.local_name == new.local_name
        && old.primary_key == new.primary_key
        && same_types
}

/// Whether the columns that the file has by these names, which it may have kept from older rules, are of the types that
/// they are to have. SQLite would bring values into the form of the declared type: `007` would become 7.
fn has_room_for(tx: &Connection, new: &Table) -> Result<bool> {
    let mut found = tx.prepare("SELECT lower(name), type FROM pragma_table_info(?1)")?;
    let found = found.query_map([&new.local_name], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let found = found.collect::<rusqlite::Result<Vec<(String, String)>>>()?;
    Ok(new.columns.iter().all(|column| {
        let name = column.name.to_ascii_lowercase();
        found.iter().all(|(other, kind)| *other != name || kind == column.affinity.sql())
    }))
}

fn drop_triggers(tx: &Connection, table: &Table) -> Result<()> {
    let mut names = tx.prepare(
        r"SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 AND name LIKE 'posduif\_%' ESCAPE '\'",
    )?;
    let names =
        names.query_map([&table.local_name], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    for name in names {
        tx.execute_batch(&format!("DROP TRIGGER {}", quoted(&name)))?;
    }
    Ok(())
}

/// Drops a table that the device may no longer hold; local writes to it are kept in the list of rejected ones.
fn remove(tx: &Connection, table: &Table) -> Result<()> {
    let name = table.name.to_string();
    let mut seqs =
        tx.prepare(r#"SELECT seq FROM posduif_outbox WHERE "table" = ?1 AND state = 'pending'"#)?;
    for seq in seqs.query_map([&name], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()? {
        list_rejected(tx, seq, "RULES_CHANGED", "the table is no longer synced in this form")?;
    }
    tx.execute(r#"DELETE FROM posduif_outbox WHERE "table" = ?1"#, [&name])?;
    tx.execute_batch(&format!(
        "DROP TABLE IF EXISTS {}; DROP TABLE IF EXISTS {};",
        quoted(&table.local_name),
        base_name(table)
    ))?;
    Ok(())
}

fn create(tx: &Connection, table: &Table, user: &str) -> Result<()> {
    let definition = |default: bool| {
        let columns = table.columns.iter().map(|column| {
            let key = if table.primary_key.contains(&column.name) { " NOT NULL" } else { "" };
            let default = if default { default_of(table, &column.name, user) } else { String::new() };
            format!("{} {}{key}{default}", quoted(&column.name), column.affinity.sql())
        });
        columns.collect::<Vec<_>>().join(", ")
    };
    let key = columns(table.key_columns(), "");
    if !exists(tx, &format!("posduif_base_{}", table.local_name))? {
        tx.execute_batch(&format!(
            "CREATE TABLE {} ({}, PRIMARY KEY ({key}));
             CREATE TABLE {} ({}, posduif_present INTEGER NOT NULL, PRIMARY KEY ({key}));",
            quoted(&table.local_name),
            definition(true),
            base_name(table),
            definition(false)
        ))?;
    }
    for local in [table.local_name.clone(), format!("posduif_base_{}", table.local_name)] {
        let there = existing_columns(tx, &local)?;
        for column in table.columns.iter().filter(|column| !there.contains(&column.name.to_ascii_lowercase()))
        {
            let (name, affinity) = (quoted(&column.name), column.affinity.sql());
            tx.execute_batch(&format!("ALTER TABLE {} ADD COLUMN {name} {affinity}", quoted(&local)))?;
        }
    }
    Ok(())
}

/// What an application may leave out of an INSERT: a message is the device's own user's and written now.
fn default_of(table: &Table, column: &str, user: &str) -> String {
    if table.list != Some(List::Messages) {
        return String::new();
    }
    match column {
        "sender_id" => format!(" DEFAULT '{user}'"),
        "status" => " DEFAULT 'pending_sync'".to_owned(),
        "created_at" | "updated_at" => " DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))".to_owned(),
        _ => String::new(),
    }
}

/// Empties the columns that are no longer granted. They stay, since the application's indexes may use them.
fn blank(tx: &Connection, new: &Table, installed: &[&Table]) -> Result<()> {
    let withdrawn = installed
        .iter()
        .filter(|old| continues(old, new))
        .flat_map(|old| &old.columns)
        .filter(|column| new.column(&column.name).is_none());
    for column in withdrawn {
        for table in [quoted(&new.local_name), base_name(new)] {
            tx.execute_batch(&format!("UPDATE {table} SET {} = NULL", quoted(&column.name)))?;
        }
    }
    Ok(())
}

fn exists(tx: &Connection, table: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    Ok(tx.query_row(sql, [table], |_| Ok(())).optional()?.is_some())
}

/// The names of a table's columns in lower case: SQLite does not tell them apart by it.
fn existing_columns(tx: &Connection, table: &str) -> Result<BTreeSet<String>> {
    let mut names = tx.prepare("SELECT lower(name) FROM pragma_table_info(?1)")?;
    Ok(names.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}
