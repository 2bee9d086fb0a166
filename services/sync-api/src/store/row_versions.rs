//! `posduif_engine.row_versions`: who wrote the newest version of a row, and which rows are gone.

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;
use posduif_model::{DeviceId, TableName, UserId};

use super::StoreError;

/// The SQL of a row's key, from expressions for the values of its primary key; the trigger on deleted rows makes the same.
pub(super) fn key_sql(values: &[String]) -> String {
    format!("sha256(convert_to(jsonb_build_array({})::text, 'UTF8'))", values.join(", "))
}

/// A version of a row: later ones win, of two at one time that of the greater device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version<'a> {
    pub at: DateTime<Utc>,
    pub device: &'a DeviceId,
}

/// Notes that the user's row was deleted as of this version, whatever was noted before.
pub async fn bury(
    client: &impl GenericClient,
    table: &TableName,
    key: &[u8],
    owner: UserId,
    version: &Version<'_>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO posduif_engine.row_versions (table_name, key, version, device_id, deleted, owner)
               VALUES ($1, $2, $3, $4, true, $5)
               ON CONFLICT (table_name, key) DO UPDATE
                  SET version = excluded.version, device_id = excluded.device_id, deleted = true,
                      owner = excluded.owner, written_at = now()";
    let statement = client.prepare_cached(sql).await?;
    let (table, device) = (table.to_string(), version.device.as_str());
    client.execute(&statement, &[&table, &key, &version.at, &device, &owner.uuid()]).await?;
    Ok(())
}

/// Makes the tombstone of the user's own row later; one that is later already stays.
pub async fn raise(
    client: &impl GenericClient,
    table: &TableName,
    key: &[u8],
    owner: UserId,
    version: &Version<'_>,
) -> Result<(), StoreError> {
    let sql = "UPDATE posduif_engine.row_versions SET version = $3, device_id = $4, written_at = now()
                WHERE table_name = $1 AND key = $2 AND deleted AND owner = $5 AND (version, device_id) < ($3, $4)";
    let statement = client.prepare_cached(sql).await?;
    let (table, device) = (table.to_string(), version.device.as_str());
    client.execute(&statement, &[&table, &key, &version.at, &device, &owner.uuid()]).await?;
    Ok(())
}

/// Forgets some writers of more than a week ago and tombstones of more than 90 days ago; how many of both.
pub async fn prune(client: &impl GenericClient, most: i64) -> Result<u64, StoreError> {
    let mut pruned = 0;
    for old in [
        "NOT deleted AND written_at < now() - interval '7 days'",
        "deleted AND written_at < now() - interval '90 days'",
    ] {
        let sql = format!(
            "DELETE FROM posduif_engine.row_versions WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM posduif_engine.row_versions WHERE {old}
                  ORDER BY written_at LIMIT $1 FOR UPDATE SKIP LOCKED))"
        );
        let statement = client.prepare_cached(&sql).await?;
        pruned += client.execute(&statement, &[&most]).await?;
    }
    Ok(pruned)
}
