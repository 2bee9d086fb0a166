//! One operation on one row, encoded once and ready to be served.

use crate::table::TableName;

/// What happens to a row, or to a whole table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Every row of the table is gone.
    Truncate,
    /// The row is gone, or has left the reader's bucket.
    Delete,
    /// The row now looks like this; it may have existed before.
    Put,
}

/// An operation with its row as JSON; the API concatenates these texts and never looks inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub op: Op,
    pub table: TableName,
    /// The primary key as a JSON object; empty for a truncate.
    pub key: String,
    /// The declared columns as a JSON object; empty unless the operation is a put.
    pub row: String,
}
