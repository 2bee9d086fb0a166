//! The rules and the tenant's catalogue in, what is needed to route the declared tables out.

use std::collections::HashMap;

use posduif_model::{
    TableName,
    rule::{BucketTemplate, RuleSet, TableDeclaration},
    value::TypeCatalog,
};
use posduif_runtime::postgres::load_types;
use sha2::{Digest, Sha256};
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
#[derive(Clone, Debug)]
pub struct Catalog {
    keys: HashMap<TableName, Vec<String>>,
    types: TypeCatalog,
    fingerprint: String,
}

impl Catalog {
    /// The primary key of a declared table.
    pub fn key(&self, table: &TableName) -> Option<&[String]> {
        self.keys.get(table).map(Vec::as_slice)
    }

    /// The types of the sent columns and keys of the declared tables.
    pub fn types(&self) -> &TypeCatalog {
        &self.types
    }

    /// A hash of everything that can change what devices hold without a message in the WAL: which tables are
    /// published since when, the identity, key and sent columns of each, and what the types of those are made of.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Checks the server, the publication and every declared table.
    pub async fn load(client: &Client, rules: &RuleSet, publication: &str) -> Result<Self, CatalogError> {
        check_server(client, publication).await?;
        let (mut keys, mut digest) = (HashMap::new(), Sha256::new());
        let mut type_oids = Vec::new();
        for declaration in rules.tables() {
            let checked = check_table(client, declaration, publication).await?;
            for part in [declaration.table.to_string(), checked.identity] {
                digest.update(part);
                digest.update([0]);
            }
            keys.insert(declaration.table.clone(), checked.key);
            type_oids.extend(checked.type_oids);
        }
        let types = load_types(client, &type_oids).await?;
        digest.update(types.to_string());
        let fingerprint = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Ok(Catalog { keys, types, fingerprint })
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

/// One declared table: its state, and names of its columns, key, index and out-of-line columns.
const TABLE: &str = "
SELECT c.relkind::text, c.relreplident::text,
       (SELECT p.oid || ' ' || r.oid FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
         WHERE p.pubname = $3 AND r.prrelid = c.oid),
       ARRAY(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT a.attname::text
               FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY k (attnum, place)
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
              WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place),
       ARRAY(SELECT a.attname::text
               FROM pg_index i CROSS JOIN unnest(i.indkey) k (attnum)
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
              WHERE i.indrelid = c.oid AND i.indisreplident),
       ARRAY(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attstorage <> 'p'),
       c.oid::text,
       ARRAY(SELECT a.attname || ' ' || a.atttypid || ' ' || a.atttypmod FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND ($4::text[] IS NULL OR a.attname = ANY ($4)) ORDER BY a.attnum),
       ARRAY(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.atttypid = 'uuid'::regtype),
       ARRAY(SELECT a.atttypid FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND ($4::text[] IS NULL OR a.attname = ANY ($4)
                     OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary
                                                         AND a.attnum = ANY (i.indkey))))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relname = $2";

/// A table that can be synced.
struct CheckedTable {
    key: Vec<String>,
    identity: String,
    /// The types of the sent columns and of the key.
    type_oids: Vec<u32>,
}

async fn check_table(
    client: &Client,
    declaration: &TableDeclaration,
    publication: &str,
) -> Result<CheckedTable, CatalogError> {
    let table = &declaration.table;
    let fault = |problem: String| CatalogError::Table { table: table.clone(), problem };
    let row = client
        .query_opt(TABLE, &[&table.schema(), &table.name(), &publication, &declaration.columns])
        .await?
        .ok_or_else(|| fault("does not exist; create it and run posduif migrate".to_owned()))?;
    let (kind, identity): (String, String) = (row.get(0), row.get(1));
    let (columns, key, index): (Vec<String>, Vec<String>, Vec<String>) = (row.get(3), row.get(4), row.get(5));
    let (out_of_line, oid, sent): (Vec<String>, String, Vec<String>) = (row.get(6), row.get(7), row.get(8));
    match kind.as_str() {
        "r" => {}
        "p" => {
            return Err(fault(
                "is partitioned, which cannot be synced yet; take it out of sync.tables".to_owned(),
            ));
        }
        _ => return Err(fault("is not a table".to_owned())),
    }
    let Some(published) = row.get::<_, Option<String>>(2) else {
        return Err(fault(format!("is not in publication {publication}; run posduif migrate")));
    };
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
    let listed = declaration.columns.as_deref().unwrap_or(&columns);
    for column in listed.iter().chain(routed.clone()) {
        if !columns.contains(column) {
            return Err(fault(format!("has no column {column}")));
        }
    }
    let uuids: Vec<String> = row.get(9);
    if let Some(column) = routed.clone().find(|column| !uuids.contains(column)) {
        return Err(fault(format!("names its user in column {column}, which must be of type uuid")));
    }
    let covered = |column: &String| index.contains(column);
    let keeps_old_rows = match identity.as_str() {
        "f" => true,
        // An update that leaves a large value alone sends it only with the old row.
        "i" => {
            key.iter().all(covered)
                && routed.clone().all(covered)
                && !listed.iter().any(|column| out_of_line.contains(column))
        }
        _ => false,
    };
    if !keeps_old_rows {
        let fix = format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.to_sql());
        return Err(fault(format!("does not keep enough of its old rows; run {fix}")));
    }
    let identity = format!("{oid} {published} {identity} {} {}", key.join(","), sent.join(","));
    Ok(CheckedTable { key, identity, type_oids: row.get(10) })
}
