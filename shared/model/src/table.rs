//! The name and the shape of a table of the tenant database.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A table's schema and name, as the catalogue spells them.
///
/// The text form is `schema.table`, or `table` for the schema `public`; it has no quotes and splits at the
/// first dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    schema: String,
    name: String,
}

/// The text names no table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a table name, expected schema.table with parts of 1 to 63 bytes")]
pub struct InvalidTableName;

impl TableName {
    /// A name from the two parts that the catalogue stores (`nspname`, `relname`).
    pub fn new(schema: &str, name: &str) -> Result<Self, InvalidTableName> {
        let part = |text: &str| (1..=63).contains(&text.len()) && !text.contains('\0');
        if !part(schema) || !part(name) || schema.contains('.') {
            return Err(InvalidTableName);
        }
        Ok(TableName { schema: schema.to_owned(), name: name.to_owned() })
    }

    pub fn schema(&self) -> &str {
        &self.schema
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name as an SQL expression, both parts quoted.
    pub fn to_sql(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }
}

/// An identifier in double quotes (PostgreSQL manual 4.1.1).
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

impl FromStr for TableName {
    type Err = InvalidTableName;

    fn from_str(text: &str) -> Result<Self, InvalidTableName> {
        match text.split_once('.') {
            Some((schema, name)) => TableName::new(schema, name),
            None => TableName::new("public", text),
        }
    }
}

impl TryFrom<String> for TableName {
    type Error = InvalidTableName;

    fn try_from(text: String) -> Result<Self, InvalidTableName> {
        text.parse()
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> String {
        name.to_string()
    }
}

/// One column as PostgreSQL describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// `pg_type.oid`; with the type catalogue it decides the JSON form of the column's values.
    pub type_oid: u32,
    /// Whether the catalogue lets the column be NULL.
    pub nullable: bool,
}

/// What the catalogue says of a table: its columns in order and its primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableShape {
    pub name: TableName,
    pub columns: Vec<Column>,
    /// Names of the primary-key columns, in key order.
    pub key: Vec<String>,
}

impl TableShape {
    /// The place of a column among the table's columns.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_lies_in_public() {
        assert_eq!("tasks".parse::<TableName>().map(|t| t.to_string()), Ok("public.tasks".to_owned()));
    }

    #[test]
    fn quotes_in_names_cannot_end_an_identifier() {
        let table = TableName::new("s", "a\"; drop table x; --").unwrap();
        assert_eq!(table.to_sql(), "\"s\".\"a\"\"; drop table x; --\"");
    }
}
