//! The system catalogue: what the declared tables look like right now.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::{GenericClient, Transaction};
use posduif_model::{
    TableName,
    table::{Column, TableShape},
    value::TypeCatalog,
};
use posduif_runtime::postgres::load_types;

use super::StoreError;

/// Those of the tables that exist, each once.
pub async fn existing(
    client: &impl GenericClient,
    tables: impl Iterator<Item = &TableName>,
) -> Result<Vec<TableName>, StoreError> {
    let (schemas, names): (Vec<&str>, Vec<&str>) = tables.map(|table| (table.schema(), table.name())).unzip();
    let sql = "SELECT DISTINCT n.nspname::text, c.relname::text
                 FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
                 JOIN pg_namespace n ON n.nspname = wanted.schema
                 JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
                                AND c.relkind IN ('r', 'p')";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&schemas, &names]).await?;
    rows.iter().map(|row| table_name(row.try_get(0)?, row.try_get(1)?)).collect()
}

/// Keeps tables from being altered until the transaction ends; it takes no snapshot.
pub async fn lock(transaction: &Transaction<'_>, tables: &[TableName]) -> Result<(), StoreError> {
    if tables.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = tables.iter().map(TableName::to_sql).collect();
    Ok(transaction.batch_execute(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "))).await?)
}

fn table_name(schema: &str, name: &str) -> Result<TableName, StoreError> {
    TableName::new(schema, name).map_err(|error| StoreError::Unexpected(error.to_string()))
}

/// The shapes of those of the tables that exist.
///
/// Virtual generated columns are left out: they never reach the log either.
pub async fn shapes(
    client: &impl GenericClient,
    tables: impl Iterator<Item = &TableName>,
) -> Result<BTreeMap<TableName, TableShape>, StoreError> {
    // Each once, else a table that is asked for twice would have each of its columns twice.
    let tables: BTreeSet<&TableName> = tables.collect();
    let wanted = tables.into_iter().map(|table| (table.schema(), table.name()));
    let (schemas, names): (Vec<&str>, Vec<&str>) = wanted.unzip();
    let sql = "SELECT n.nspname::text, c.relname::text, a.attname::text, a.atttypid, NOT a.attnotnull,
                      array_position((i.indkey::int2[])[:i.indnkeyatts - 1], a.attnum)
                 FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
                 JOIN pg_namespace n ON n.nspname = wanted.schema
                 JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
                                AND c.relkind IN ('r', 'p')
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                                    AND a.attgenerated <> 'v'
                 LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
                ORDER BY c.oid, a.attnum";
    let statement = client.prepare_cached(sql).await?;
    let mut shapes: BTreeMap<TableName, TableShape> = BTreeMap::new();
    let mut keys: BTreeMap<TableName, BTreeMap<i32, String>> = BTreeMap::new();
    for row in client.query(&statement, &[&schemas, &names]).await? {
        let table = table_name(row.try_get(0)?, row.try_get(1)?)?;
        let column = Column { name: row.try_get(2)?, type_oid: row.try_get(3)?, nullable: row.try_get(4)? };
        if let Some(place) = row.try_get::<_, Option<i32>>(5)? {
            keys.entry(table.clone()).or_default().insert(place, column.name.clone());
        }
        let shape = shapes.entry(table.clone()).or_insert_with(|| TableShape {
            name: table,
            columns: Vec::new(),
            key: Vec::new(),
        });
        shape.columns.push(column);
    }
    for (table, key) in keys {
        if let Some(shape) = shapes.get_mut(&table) {
            shape.key = key.into_values().collect();
        }
    }
    Ok(shapes)
}

/// What the types of all columns of these tables are made of.
pub async fn types(
    client: &impl tokio_postgres::GenericClient,
    shapes: &BTreeMap<TableName, TableShape>,
) -> Result<TypeCatalog, StoreError> {
    let columns = shapes.values().flat_map(|shape| &shape.columns);
    let oids: BTreeSet<u32> = columns.map(|column| column.type_oid).collect();
    Ok(load_types(client, &oids.into_iter().collect::<Vec<_>>()).await?)
}
