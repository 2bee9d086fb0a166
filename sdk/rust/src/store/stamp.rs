//! A table's version column in, the SQL of a version for a local write out.
//!
//! The last write wins by this column, so a write must not look older than what it replaces: a phone whose clock is a
//! year late could never change a row again. It gets the device's time or, where that is not later, the moment after
//! the version that the user saw. A version that was just set is later than any other of the same row here, so that
//! setting it is always a change.

use posduif_model::table::quote_identifier as quoted;

use super::triggers::{base_name, key_json, literal, same_key};
use crate::table::{Column, Table};

/// A version for the row `OLD`, which is there.
pub(super) fn after_old(version: &Column) -> String {
    after(&[format!("OLD.{}", quoted(&version.name))])
}

/// A version for the row `NEW`, whose key may have been deleted or replaced a moment ago.
pub(super) fn after_any(table: &Table, version: &Column) -> String {
    let of_server = format!(
        "(SELECT b.{} FROM {} b WHERE {})",
        quoted(&version.name),
        base_name(table),
        same_key(table, "b", "NEW")
    );
    let of_device = format!(
        r#"(SELECT j.value FROM posduif_outbox o, json_each(o.row) j
            WHERE o."table" = {} AND o.key = {} AND j.key = {} ORDER BY o.seq DESC LIMIT 1)"#,
        literal(&table.name.to_string()),
        key_json(table, "NEW"),
        literal(&version.name)
    );
    after(&[of_server, of_device])
}

/// SQLite's times have milliseconds, and so has the shortest step.
fn after(earlier: &[String]) -> String {
    let earlier = earlier.iter().map(|time| format!(", coalesce(julianday({time}, '+0.001 seconds'), 0)"));
    format!("strftime('%Y-%m-%dT%H:%M:%fZ', max(julianday('now'){}))", earlier.collect::<String>())
}
