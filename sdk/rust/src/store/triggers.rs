//! A table's write rule in, the triggers that guard and capture local writes out.
//!
//! The triggers belong to the database, so they work for any connection and any SQLite with JSON; they call no
//! function of this crate. An `ON CONFLICT` clause inside a trigger is overruled by the outer statement's, so
//! "insert unless present" is written as `WHERE NOT EXISTS`. Each capture first saves the server's version of
//! the row below the local write (see [`super::hold`]).

use posduif_model::table::quote_identifier as quoted;

use super::stamp;
use crate::{
    cell::Affinity,
    table::{Column, List, Table},
};

/// True for everyone but sync itself.
const LOCAL: &str = "(SELECT value FROM posduif_state WHERE name = 'applying') = 0";
const USER: &str = "(SELECT value FROM posduif_state WHERE name = 'user_id')";

/// The statements that create the table's triggers.
pub(super) fn create(table: &Table) -> String {
    let mut sql = Triggers { table, sql: String::new() };
    if table.write.is_some() {
        sql.writable()
    } else {
        sql.read_only()
    }
    sql.sql
}

/// The key of the row that `prefix` names, as the JSON array that the outbox holds.
pub(super) fn key_json(table: &Table, prefix: &str) -> String {
    let values: Vec<_> = table.key_columns().map(|column| json_value(column, prefix)).collect();
    format!("json_array({})", values.join(", "))
}

/// `a.k = b.k` for every key column.
pub(super) fn same_key(table: &Table, a: &str, b: &str) -> String {
    let terms: Vec<_> = table.key_columns().map(|column| quoted(&column.name)).collect();
    terms.iter().map(|name| format!("{a}.{name} = {b}.{name}")).collect::<Vec<_>>().join(" AND ")
}

/// A comma-separated list of quoted columns, each behind the prefix.
pub(super) fn columns<'t>(columns: impl Iterator<Item = &'t Column>, prefix: &str) -> String {
    columns.map(|column| format!("{prefix}{}", quoted(&column.name))).collect::<Vec<_>>().join(", ")
}

/// The table of saved server versions that belongs to a table.
pub(super) fn base_name(table: &Table) -> String {
    quoted(&format!("posduif_base_{}", table.local_name))
}

fn json_value(column: &Column, prefix: &str) -> String {
    let value = format!("{prefix}.{}", quoted(&column.name));
    match column.affinity {
        Affinity::Blob => format!("CASE WHEN {value} IS NOT NULL THEN hex({value}) END"),
        // json_object() of older SQLite versions writes 15 digits.
        Affinity::Real => {
            format!("CASE typeof({value}) WHEN 'real' THEN printf('%!.17g', {value}) ELSE {value} END")
        }
        Affinity::Text | Affinity::Integer => value,
    }
}

fn row_json(table: &Table, prefix: &str) -> String {
    let member = |column: &&Column| format!("{}, {}", literal(&column.name), json_value(column, prefix));
    format!("json_object({})", table.uploaded().iter().map(member).collect::<Vec<_>>().join(", "))
}

pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

struct Triggers<'t> {
    table: &'t Table,
    sql: String,
}

impl Triggers<'_> {
    fn add(&mut self, name: &str, event: &str, when: &str, body: &str) {
        let trigger = quoted(&format!("posduif_{name}_{}", self.table.local_name));
        let table = quoted(&self.table.local_name);
        self.sql.push_str(&format!(
            "CREATE TRIGGER {trigger} {event} ON {table} WHEN {LOCAL}{when} BEGIN {body}; END;\n"
        ));
    }

    fn refuse(&mut self, name: &str, event: &str, when: &str, why: &str) {
        let message = literal(&format!("posduif: {} {why}", self.table.local_name));
        self.add(name, event, when, &format!("SELECT RAISE(ABORT, {message})"));
    }

    fn read_only(&mut self) {
        for event in ["INSERT", "UPDATE", "DELETE"] {
            let name = format!("no_{}", event.to_lowercase());
            self.refuse(&name, &format!("BEFORE {event}"), "", "is read-only on this device");
        }
    }

    fn writable(&mut self) {
        let message = self.table.list == Some(List::Messages);
        match self.table.list {
            Some(List::Messages) => self.message_rules(),
            Some(List::Users) => {
                self.refuse("no_insert", "BEFORE INSERT", "", "rows are not made on a device");
                self.refuse("no_delete", "BEFORE DELETE", "", "rows are not deleted on a device");
            }
            None => {}
        }
        self.owner_rules();
        self.fixed_columns(message);
        let table = self.table;

        // An INSERT OR REPLACE removes the row it meets without any DELETE trigger.
        let existing = format!(
            "SELECT {}, 1 FROM {} t WHERE {}",
            columns(table.columns.iter(), "t."),
            quoted(&table.local_name),
            same_key(table, "t", "NEW")
        );
        self.add("replace", "BEFORE INSERT", "", &hold(table, &existing, "NEW"));
        self.insert();
        self.update();

        if message {
            let read = " AND NEW.status = 'read' AND OLD.status IS NOT 'read'";
            let entry = entry(table, "read", "NEW", "NULL", "");
            self.add("read", "AFTER UPDATE", read, &format!("{}; {entry}", hold_old(table)));
            self.refuse("no_delete", "BEFORE DELETE", "", "rows are not deleted on a device");
        } else {
            let version = table.version().map(|version| {
                format!("json_object({}, {})", literal(&version.name), stamp::after_old(version))
            });
            let entry = entry(table, "delete", "OLD", version.as_deref().unwrap_or("NULL"), "");
            self.add("delete", "AFTER DELETE", "", &format!("{}; {entry}", hold_old(table)));
        }
    }

    /// What the application left out is filled in by an UPDATE, whose own trigger then captures the whole row.
    fn insert(&mut self) {
        let table = self.table;
        let nothing = format!("SELECT {}, 0 WHERE 1", padded_key(table));
        let held = hold(table, &nothing, "NEW");
        let owner = table.owner().map(|owner| (owner, USER.to_owned()));
        let version = table.version().map(|version| (version, stamp::after_any(table, version)));
        let left_out: Vec<_> = owner.into_iter().chain(version).collect();
        let is = |what: &str, how: &str| {
            let terms = left_out.iter().map(|(column, _)| format!("NEW.{} {what}", quoted(&column.name)));
            terms.collect::<Vec<_>>().join(how)
        };
        let mut filled = String::new();
        let mut whole = String::new();
        if !left_out.is_empty() {
            let sets = left_out.iter().map(|(column, value)| {
                let name = quoted(&column.name);
                format!("{name} = coalesce({name}, {value})")
            });
            filled = format!(
                "; UPDATE {} SET {} WHERE {} AND ({})",
                quoted(&table.local_name),
                sets.collect::<Vec<_>>().join(", "),
                key_of(table, "NEW"),
                is("IS NULL", " OR ")
            );
            whole = format!(" WHERE {}", is("IS NOT NULL", " AND "));
        }
        let put = entry(table, "put", "NEW", &row_json(table, "NEW"), &whole);
        self.add("insert", "AFTER INSERT", "", &format!("{held}{filled}; {put}"));
    }

    fn update(&mut self) {
        let table = self.table;
        let held = hold_old(table);
        let changed = match table.version() {
            None => differs(table.writable()),
            Some(version) => {
                let name = quoted(&version.name);
                let granted = differs(table.granted());
                let missing = format!(
                    " AND ((OLD.{name} IS NEW.{name} AND ({granted})) OR (NEW.{name} IS NULL AND OLD.{name} IS NOT NULL))"
                );
                let set = format!(
                    "UPDATE {} SET {name} = {} WHERE {}",
                    quoted(&table.local_name),
                    stamp::after_old(version),
                    key_of(table, "NEW")
                );
                self.add("stamp", "AFTER UPDATE", &missing, &format!("{held}; {set}"));
                format!("(NEW.{name} IS NOT NULL AND OLD.{name} IS NOT NEW.{name})")
            }
        };
        let taken = differs(table.owner().into_iter());
        let when = format!(" AND ({changed} OR {taken})");
        let put = entry(table, "put", "NEW", &row_json(table, "NEW"), "");
        self.add("update", "AFTER UPDATE", &when, &format!("{held}; {put}"));
    }

    fn fixed_columns(&mut self, message: bool) {
        let table = self.table;
        let read_mark = |name: &str| message && matches!(name, "status" | "read_at");
        let (owner, others): (Vec<_>, Vec<_>) = table
            .columns
            .iter()
            .filter(|column| !read_mark(&column.name))
            .filter(|column| !table.writable().any(|writable| writable == *column))
            .partition(|column| table.owner() == Some(column) && !table.primary_key.contains(&column.name));
        let mut when = format!(" AND ({}", differs(others.into_iter()));
        for owner in owner {
            let name = quoted(&owner.name);
            when.push_str(&format!(" OR (OLD.{name} IS NOT NULL AND OLD.{name} IS NOT NEW.{name})"));
        }
        when.push(')');
        self.refuse("fixed", "BEFORE UPDATE", &when, "has columns that a device may not change");
    }

    /// A device writes the rows of its own user, in tables that show those of others too.
    fn owner_rules(&mut self) {
        let table = self.table;
        let Some(owner) = table.owner() else { return };
        let name = quoted(&owner.name);
        let why =
            format!("rows of another user are not changed here ({} is not this device's user)", owner.name);
        let met = format!(
            " AND ((NEW.{name} IS NOT NULL AND NEW.{name} IS NOT {USER})
              OR EXISTS (SELECT 1 FROM {} t WHERE {} AND t.{name} IS NOT {USER}))",
            quoted(&table.local_name),
            same_key(table, "t", "NEW")
        );
        // A row that was inserted here without an owner is given its owner by the insert's trigger.
        let new_here = format!(
            "OLD.{name} IS NULL AND NEW.{name} IS {USER} AND EXISTS
             (SELECT 1 FROM {} b WHERE {} AND (b.posduif_present = 0 OR b.{name} IS {USER}))",
            base_name(table),
            same_key(table, "b", "NEW")
        );
        let of_another = format!(" AND OLD.{name} IS NOT {USER}");
        self.refuse("owner_update", "BEFORE UPDATE", &format!("{of_another} AND NOT ({new_here})"), &why);
        if table.list.is_none() {
            self.refuse("owner_insert", "BEFORE INSERT", &met, &why);
            self.refuse("owner_delete", "BEFORE DELETE", &of_another, &why);
        }
    }

    fn message_rules(&mut self) {
        let sender = format!(" AND NEW.sender_id IS NOT {USER}");
        self.refuse("sender", "BEFORE INSERT", &sender, "rows are sent as the device's own user");
        let content = format!(" AND OLD.sender_id IS NOT {USER} AND ({})", differs(self.table.writable()));
        self.refuse("author", "BEFORE UPDATE", &content, "rows are changed by their sender only");
        let read_at = match self.table.column("read_at") {
            Some(_) => " OR (OLD.read_at IS NOT NEW.read_at AND OLD.status IS NEW.status)",
            None => "",
        };
        let status = format!(
            " AND ((OLD.status IS NOT NEW.status AND NOT (NEW.status IS 'read' AND NEW.recipient_id IS {USER})){read_at})"
        );
        self.refuse("status", "BEFORE UPDATE", &status, "rows are marked as read by their recipient only");
    }
}

/// Saves what `version` (a SELECT that ends in a WHERE clause) yields as the server's version, unless one is
/// saved for the row's key.
fn hold(table: &Table, version: &str, row: &str) -> String {
    let base = base_name(table);
    format!(
        "INSERT INTO {base} ({}, posduif_present) {version} AND NOT EXISTS (SELECT 1 FROM {base} b WHERE {})",
        columns(table.columns.iter(), ""),
        same_key(table, "b", row)
    )
}

/// Saves the row before the change.
fn hold_old(table: &Table) -> String {
    hold(table, &format!("SELECT {}, 1 WHERE 1", columns(table.columns.iter(), "OLD.")), "OLD")
}

/// `k = row.k` for every key column of the table that is updated.
fn key_of(table: &Table, row: &str) -> String {
    let terms = table.key_columns().map(|column| quoted(&column.name));
    terms.map(|name| format!("{name} = {row}.{name}")).collect::<Vec<_>>().join(" AND ")
}

/// One value per column: the key from NEW, NULL elsewhere.
fn padded_key(table: &Table) -> String {
    let value = |column: &Column| match table.primary_key.contains(&column.name) {
        true => format!("NEW.{}", quoted(&column.name)),
        false => "NULL".to_owned(),
    };
    table.columns.iter().map(value).collect::<Vec<_>>().join(", ")
}

/// Adds an outbox entry; `filter` may be a WHERE clause.
fn entry(table: &Table, op: &str, row: &str, json: &str, filter: &str) -> String {
    format!(
        "INSERT INTO posduif_outbox (\"table\", op, key, row) SELECT {}, '{op}', {}, {json}{filter}",
        literal(&table.name.to_string()),
        key_json(table, row)
    )
}

fn differs<'t>(columns: impl Iterator<Item = &'t Column>) -> String {
    let terms: Vec<_> = columns
        .map(|column| quoted(&column.name))
        .map(|name| format!("OLD.{name} IS NOT NEW.{name}"))
        .collect();
    if terms.is_empty() { "0".to_owned() } else { terms.join(" OR ") }
}
