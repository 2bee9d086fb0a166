//! The services' own role in, what it may do out: read and write rows, never change a table or the publication.

use posduif_model::{TableName, table::quote_identifier};
use tokio_postgres::Client;

use crate::error::MigrationError;

/// The messenger's own tables that are not synced, besides those that are.
const UNSYNCED: &str = "public.devices, public.enrollment_tokens, public.sync_metadata";

/// Grants the role what ingester and API need; repeating it changes nothing.
pub(crate) async fn ensure(client: &Client, role: &str, tables: &[TableName]) -> Result<(), MigrationError> {
    let role = quote_identifier(role);
    let mut schemas: Vec<&str> =
        tables.iter().map(TableName::schema).chain(["public", "posduif_engine"]).collect();
    schemas.sort_unstable();
    schemas.dedup();
    let schemas = schemas.into_iter().map(quote_identifier).collect::<Vec<_>>().join(", ");
    let synced =
        tables.iter().map(TableName::to_sql).chain([UNSYNCED.to_owned()]).collect::<Vec<_>>().join(", ");
    let rows = "SELECT, INSERT, UPDATE, DELETE";
    client
        .batch_execute(&format!(
            "GRANT USAGE ON SCHEMA {schemas} TO {role};
             GRANT {rows} ON {synced} TO {role};
             GRANT {rows} ON ALL TABLES IN SCHEMA posduif_engine TO {role};
             GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA posduif_engine TO {role}"
        ))
        .await?;
    Ok(())
}
