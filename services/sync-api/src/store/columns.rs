//! The system catalogue: what is needed to write rows of some tables.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use posduif_model::{TableName, value::TypeCatalog};
use posduif_runtime::postgres::load_types;
use tokio_postgres::types::Type;

use super::StoreError;

/// A column as a statement that writes it must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenColumn {
    pub name: String,
    pub type_oid: u32,
    /// The type as SQL writes it; of a domain, the type under it.
    pub type_sql: String,
    /// What an INSERT that leaves the column out stores, as SQL.
    pub default_sql: Option<String>,
    /// Its place in the primary key.
    pub key_place: Option<i32>,
    /// The type is made of others, or has a form of its own in JSON.
    is_plain: bool,
}

/// The columns of those of the tables that exist, and what their types are made of.
pub async fn load(
    transaction: &Transaction<'_>,
    tables: impl Iterator<Item = &TableName>,
) -> Result<(BTreeMap<TableName, Vec<WrittenColumn>>, TypeCatalog), StoreError> {
    let (schemas, names): (Vec<&str>, Vec<&str>) = tables.map(|table| (table.schema(), table.name())).unzip();
    let sql = "SELECT n.nspname::text, c.relname::text, a.attname::text, a.atttypid,
                      CASE WHEN t.typtype <> 'd' THEN format_type(a.atttypid, a.atttypmod) ELSE (
                          WITH RECURSIVE under (oid, base) AS (
                              SELECT t.oid, t.typbasetype
                              UNION ALL
                              SELECT b.oid, b.typbasetype FROM under JOIN pg_type b ON b.oid = under.base)
                          SELECT format_type(oid, NULL) FROM under WHERE base = 0) END,
                      CASE WHEN a.attidentity = '' AND a.attgenerated = '' THEN
                          coalesce(pg_get_expr(d.adbin, d.adrelid), pg_get_expr(t.typdefaultbin, 0)) END,
                      array_position((i.indkey::int2[])[:i.indnkeyatts - 1], a.attnum),
                      t.typtype IN ('b', 'e') AND t.typoutput <> 'pg_catalog.array_out'::regproc AND t.typname <> 'hstore'
                 FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
                 JOIN pg_namespace n ON n.nspname = wanted.schema
                 JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
                                AND c.relkind IN ('r', 'p')
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                                    AND a.attgenerated <> 'v'
                 JOIN pg_type t ON t.oid = a.atttypid
                 LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
                 LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
                ORDER BY c.oid, a.attnum";
    let statement = transaction.prepare_cached(sql).await?;
    let mut found: BTreeMap<TableName, Vec<WrittenColumn>> = BTreeMap::new();
    for row in transaction.query(&statement, &[&schemas, &names]).await? {
        let table = TableName::new(row.try_get(0)?, row.try_get(1)?)
            .map_err(|error| StoreError::Unexpected(error.to_string()))?;
        found.entry(table).or_default().push(WrittenColumn {
            name: row.try_get(2)?,
            type_oid: row.try_get(3)?,
            type_sql: row.try_get(4)?,
            default_sql: row.try_get(5)?,
            key_place: row.try_get(6)?,
            is_plain: row.try_get(7)?,
        });
    }
    let made: Vec<u32> =
        found.values().flatten().filter(|column| !column.is_plain).map(|column| column.type_oid).collect();
    let types =
        if made.is_empty() { TypeCatalog::default() } else { load_types(&**transaction, &made).await? };
    Ok((found, types))
}

impl WrittenColumn {
    /// The column's value in SQL as part of a row's key: equal numbers of another scale have one text.
    pub(super) fn key_sql(&self, value: &str) -> String {
        if self.type_oid == Type::NUMERIC.oid() { format!("trim_scale({value})") } else { value.to_owned() }
    }
}
