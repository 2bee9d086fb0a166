//! The declared tables in, those that exist with a replica identity that keeps old rows out.

use posduif_model::{TableName, rule::RuleSet, table::quote_identifier};
use tokio_postgres::Client;

use crate::error::MigrationError;

/// Gives each declared table `REPLICA IDENTITY FULL` unless an index was chosen for it, and returns the tables
/// that can be published.
///
/// A table that is missing, is not a table, has no primary key or has a virtual generated column is left out
/// with a warning: publishing it would break the application's own updates or leave devices without a key.
pub(crate) async fn prepare(
    client: &Client,
    rules: &RuleSet,
    warnings: &mut Vec<String>,
) -> Result<Vec<TableName>, MigrationError> {
    let mut ready = Vec::new();
    for declaration in rules.tables() {
        let table = &declaration.table;
        let found = client
            .query_opt(
                "SELECT c.relkind::text, c.relreplident::text,
                        EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary),
                        EXISTS (SELECT FROM pg_attribute a
                                 WHERE a.attrelid = c.oid AND a.attgenerated = 'v' AND NOT a.attisdropped)
                   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE n.nspname = $1 AND c.relname = $2",
                &[&table.schema(), &table.name()],
            )
            .await?;
        let Some(row) = found else {
            warnings.push(format!(
                "table {table} of sync.tables does not exist yet; create it and migrate again"
            ));
            continue;
        };
        let (kind, identity): (String, String) = (row.get(0), row.get(1));
        let (has_key, has_virtual): (bool, bool) = (row.get(2), row.get(3));
        let obstacle = match (kind.as_str(), has_key, has_virtual) {
            // Its partitions have replica identities of their own, and later ones would come without.
            ("p", ..) => Some("is partitioned, which cannot be synced yet"),
            (kind, ..) if kind != "r" => Some("is not a table"),
            (_, false, _) => Some("has no primary key; add one, devices address rows by it"),
            (.., true) => {
                Some("has a virtual generated column, which makes its own UPDATEs fail; make it STORED")
            }
            _ => None,
        };
        if let Some(obstacle) = obstacle {
            warnings.push(format!("table {table} of sync.tables {obstacle}; it is not synced"));
            continue;
        }
        if identity != "f" && identity != "i" {
            client.batch_execute(&format!("ALTER TABLE {} REPLICA IDENTITY FULL", table.to_sql())).await?;
        }
        ready.push(table.clone());
    }
    Ok(ready)
}

/// A list of tables as SQL.
pub(crate) fn sql_list(tables: &[TableName]) -> String {
    let heartbeat = format!("{}.{}", quote_identifier("posduif_engine"), quote_identifier("heartbeat"));
    tables.iter().map(TableName::to_sql).chain([heartbeat]).collect::<Vec<_>>().join(", ")
}
