//! Positions of PostgreSQL's write-ahead log, and marks in it.

use deadpool_postgres::GenericClient;
use posduif_model::Lsn;
use tokio_postgres::types::PgLsn;

use super::StoreError;

/// Prefix of the message that begins an upload's transaction; its content is the device's id.
pub const ORIGIN: &str = "posduif.origin";
/// Prefix of the message whose commit ends the table pages of a snapshot.
pub const MARK: &str = "posduif.mark";

/// Writes a message into the WAL as part of the current transaction, and sets a parameter of that name until its end, which
/// is what the triggers of a tenant that is polled see.
pub async fn emit(client: &impl GenericClient, prefix: &str, content: &str) -> Result<(), StoreError> {
    let statement = client
        .prepare_cached("SELECT pg_logical_emit_message(true, $1, $2::text), set_config($1, $2, true)")
        .await?;
    client.execute(&statement, &[&prefix, &content]).await?;
    Ok(())
}

/// Returns once everything that this connection has seen so far is on PostgreSQL's disk; says on which timeline that is.
///
/// With `synchronous_commit = off` a row is visible before its commit is flushed, and a crash loses it. A crash also ends
/// the connection, so what this returns for cannot be lost between the look and the flush.
pub async fn flush(client: &impl GenericClient) -> Result<u32, StoreError> {
    let sql = "SELECT CASE WHEN pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()
                           THEN pg_logical_emit_message(false, $1, '', true) END,
                      (SELECT timeline_id FROM pg_split_walfile_name(pg_walfile_name(pg_current_wal_insert_lsn())))";
    let statement = client.prepare_cached(sql).await?;
    number(client.query_one(&statement, &[&MARK]).await?.try_get(1)?)
}

/// The timeline that the server writes.
pub async fn timeline(client: &impl GenericClient) -> Result<u32, StoreError> {
    let sql = "SELECT timeline_id FROM pg_split_walfile_name(pg_walfile_name(pg_current_wal_insert_lsn()))";
    let statement = client.prepare_cached(sql).await?;
    number(client.query_one(&statement, &[]).await?.try_get(0)?)
}

fn number(timeline: i64) -> Result<u32, StoreError> {
    u32::try_from(timeline).map_err(|error| StoreError::Unexpected(error.to_string()))
}

/// The end of the WAL: everything committed so far lies before it.
pub async fn insert_lsn(client: &impl GenericClient) -> Result<Lsn, StoreError> {
    let statement = client.prepare_cached("SELECT pg_current_wal_insert_lsn()").await?;
    let lsn: PgLsn = client.query_one(&statement, &[]).await?.try_get(0)?;
    Ok(Lsn::new(lsn.into()))
}
