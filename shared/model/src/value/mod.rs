//! PostgreSQL's text form of a value in, its JSON form out: one function for snapshot and stream.

mod string;

mod bytes;
mod json;
mod number;
mod time;

mod array;
mod composite;
mod hstore;

mod catalog;
mod form;

pub use catalog::{TypeCatalog, TypeKind};
pub use form::{Attribute, JsonForm, SqliteType};
pub use json::is_wrapped;
pub use string::write_string;

/// One column of a row as it arrives from PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datum<'a> {
    Null,
    /// A TOASTed value that the update did not touch and pgoutput did not send; never to be read as NULL.
    Unchanged,
    /// The value in the type's text output form.
    Text(&'a str),
}

/// How many levels of arrays and objects one value may have; a value that would have more is a string.
///
/// JSON parsers stop at a depth of their own, at 100 levels in the strictest widespread ones, and then the whole page
/// is lost to the device. The page around a value takes four levels more.
pub const MOST_LEVELS: usize = 64;
