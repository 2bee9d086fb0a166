//! The numbered SQL files of this crate in, their effect on the database out.

use tokio_postgres::Client;

use crate::error::MigrationError;

mod embedded {
    refinery::embed_migrations!("sql");
}

/// Refuses servers and databases that Posduif cannot work with.
pub(crate) async fn check_server(client: &Client) -> Result<(), MigrationError> {
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                    current_setting('server_encoding')",
            &[],
        )
        .await?;
    if row.get::<_, i32>(0) < 180_000 {
        return Err(MigrationError::ServerTooOld(row.get(1)));
    }
    match row.get::<_, String>(2) {
        encoding if encoding == "UTF8" => Ok(()),
        encoding => Err(MigrationError::Encoding(encoding)),
    }
}

/// Runs the migrations that this database has not seen, each in a transaction, and returns their names.
pub(crate) async fn apply(client: &mut Client) -> Result<Vec<String>, MigrationError> {
    client.batch_execute("CREATE SCHEMA IF NOT EXISTS posduif_engine").await?;
    let report = embedded::migrations::runner()
        .set_migration_table_name("posduif_engine.schema_history")
        .run_async(client)
        .await?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}
