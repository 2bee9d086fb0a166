//! The rules and the tenant's catalogue in, what is needed to route the declared tables out.

use std::collections::HashMap;

use posduif_model::{
    TableName,
    rule::{BucketTemplate, RuleSet, TableDeclaration},
};
use tokio_postgres::Client;

/// A declaration that the tenant's database cannot serve; an operator must act.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    #[error("PostgreSQL 18 or newer is needed, this server is {0}")]
    ServerTooOld(String),
    #[error("wal_level is {0}; set wal_level = logical in postgresql.conf and restart PostgreSQL")]
    WalLevel(String),
    #[error("publication {0} does not exist; run posduif migrate")]
    NoPublication(String),
    #[error("sync.tables: {table} {problem}")]
    Table { table: TableName, problem: String },
}

/// What is known of the declared tables.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    keys: HashMap<TableName, Vec<String>>,
}

impl Catalog {
    /// The primary key of a declared table.
    pub fn key(&self, table: &TableName) -> Option<&[String]> {
        self.keys.get(table).map(Vec::as_slice)
    }

    /// Checks the server, the publication and every declared table.
    pub async fn load(client: &Client, rules: &RuleSet, publication: &str) -> Result<Self, CatalogError> {
        check_server(client, publication).await?;
        let mut catalog = Catalog::default();
        for declaration in rules.tables() {
            let key = check_table(client, declaration, publication).await?;
            catalog.keys.insert(declaration.table.clone(), key);
        }
        Ok(catalog)
    }
}

async fn check_server(client: &Client, publication: &str) -> Result<(), CatalogError> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                    current_setting('wal_level'), EXISTS (SELECT FROM pg_publication WHERE pubname = $1)",
            &[&publication],
        )
        .await?;
    if row.get::<_, i32>(0) < 180_000 {
        return Err(CatalogError::ServerTooOld(row.get(1)));
    }
    match row.get::<_, String>(2) {
        level if level == "logical" => {}
        level => return Err(CatalogError::WalLevel(level)),
    }
    if !row.get::<_, bool>(3) {
        return Err(CatalogError::NoPublication(publication.to_owned()));
    }
    Ok(())
}

/// Columns by number and the state of one table, in one round trip.
const TABLE: &str = "
SELECT c.relreplident::text,
       EXISTS (SELECT FROM pg_publication_tables p
                WHERE p.pubname = $3 AND p.schemaname = $1 AND p.tablename = $2),
       ARRAY(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       ARRAY(SELECT a.attname::text
               FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY k (attnum, place)
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
              WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place),
       ARRAY(SELECT a.attname::text
               FROM pg_index i CROSS JOIN unnest(i.indkey) k (attnum)
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
              WHERE i.indrelid = c.oid AND i.indisreplident)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')";

async fn check_table(
    client: &Client,
    declaration: &TableDeclaration,
    publication: &str,
) -> Result<Vec<String>, CatalogError> {
    let table = &declaration.table;
    let fault = |problem: String| CatalogError::Table { table: table.clone(), problem };
    let row = client
        .query_opt(TABLE, &[&table.schema(), &table.name(), &publication])
        .await?
        .ok_or_else(|| fault("does not exist; create it and run posduif migrate".to_owned()))?;
    let (identity, published): (String, bool) = (row.get(0), row.get(1));
    let (columns, key, index): (Vec<String>, Vec<String>, Vec<String>) = (row.get(2), row.get(3), row.get(4));
    if !published {
        return Err(fault(format!("is not in publication {publication}; run posduif migrate")));
    }
    if key.is_empty() {
        return Err(fault(format!(
            "has no primary key; run ALTER TABLE {} ADD PRIMARY KEY (…)",
            table.to_sql()
        )));
    }
    let routed = declaration.buckets.iter().filter_map(|bucket| match bucket {
        BucketTemplate::Shared => None,
        BucketTemplate::User { column } => Some(column),
    });
    let listed = declaration.columns.iter().flatten();
    for column in listed.chain(routed.clone()) {
        if !columns.contains(column) {
            return Err(fault(format!("has no column {column}")));
        }
    }
    let covered = |column: &String| index.contains(column);
    let keeps_old_rows = match identity.as_str() {
        "f" => true,
        "i" => key.iter().all(covered) && routed.clone().all(covered),
        _ => false,
    };
    if !keeps_old_rows {
        let fix = format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.to_sql());
        return Err(fault(format!("does not keep its old rows; run {fix}, or posduif migrate")));
    }
    Ok(key)
}
