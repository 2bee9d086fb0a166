//! `public.sync_metadata`, and when a device was last seen.

use chrono::{DateTime, Utc};
use deadpool_postgres::{Client, GenericClient};
use posduif_model::{DeviceId, Lsn, UserId};
use tokio_postgres::types::PgLsn;
use uuid::Uuid;

use super::{StoreError, messages};

/// What is known of a device's sync.
#[derive(Clone, Copy, Debug, Default)]
pub struct SyncMetadata {
    pub last_sync: Option<DateTime<Utc>>,
    pub last_synced: Option<Lsn>,
    /// Writes that the device said it still has to send.
    pub pending_outgoing: i32,
}

/// A device that was heard of since the last look.
#[derive(Clone, Debug)]
pub struct Seen {
    pub device: DeviceId,
    pub at: DateTime<Utc>,
    pub commit: Option<Lsn>,
}

pub async fn find(client: &impl GenericClient, device: &DeviceId) -> Result<SyncMetadata, StoreError> {
    let sql = "SELECT last_sync_timestamp, last_synced_lsn, pending_outgoing_count
                 FROM public.sync_metadata WHERE device_id = $1";
    let statement = client.prepare_cached(sql).await?;
    let Some(row) = client.query_opt(&statement, &[&device.as_str()]).await? else {
        return Ok(SyncMetadata::default());
    };
    Ok(SyncMetadata {
        last_sync: row.try_get(0)?,
        last_synced: row.try_get::<_, Option<PgLsn>>(1)?.map(|lsn| Lsn::new(lsn.into())),
        pending_outgoing: row.try_get(2)?,
    })
}

/// Notes that messages to the user have arrived on its device; all of it or nothing.
pub async fn confirm(
    client: &mut Client,
    seen: &Seen,
    user: UserId,
    arrived: &[Uuid],
) -> Result<(), StoreError> {
    let transaction = client.transaction().await?;
    messages::mark_synced(&transaction, user, arrived).await?;
    note(&transaction, std::slice::from_ref(seen)).await?;
    transaction.commit().await?;
    Ok(())
}

/// Notes when devices were last seen and how far they had come then. Replicas note what they saw in any order, so what is
/// older than what is known changes nothing.
///
/// Everybody sees a user's row, so its `last_seen` moves only where it is five minutes old.
pub async fn note(client: &impl GenericClient, seen: &[Seen]) -> Result<(), StoreError> {
    let ids: Vec<&str> = seen.iter().map(|seen| seen.device.as_str()).collect();
    let times: Vec<DateTime<Utc>> = seen.iter().map(|seen| seen.at).collect();
    let commits: Vec<Option<PgLsn>> =
        seen.iter().map(|seen| seen.commit.map(|commit| PgLsn::from(commit.get()))).collect();
    let sql = "WITH seen AS (SELECT s.* FROM unnest($1::text[], $2::timestamptz[], $3::pg_lsn[]) s (id, at, lsn)
                               JOIN public.devices d ON d.id = s.id),
                    synced AS (
                        INSERT INTO public.sync_metadata AS m (device_id, last_sync_timestamp, last_synced_lsn)
                        SELECT id, at, lsn FROM seen WHERE lsn IS NOT NULL ORDER BY id
                        ON CONFLICT (device_id) DO UPDATE
                           SET last_sync_timestamp = excluded.last_sync_timestamp,
                               last_synced_lsn = excluded.last_synced_lsn, sync_status = 'idle', updated_at = now()
                         WHERE m.last_sync_timestamp IS NULL OR m.last_sync_timestamp <= excluded.last_sync_timestamp),
                    met AS (
                        UPDATE public.devices d SET last_seen = s.at
                          FROM (SELECT d.id, seen.at FROM public.devices d JOIN seen USING (id)
                                 WHERE d.last_seen IS NULL OR d.last_seen < seen.at
                                 ORDER BY d.id FOR NO KEY UPDATE OF d) s
                         WHERE d.id = s.id RETURNING d.user_id, d.last_seen)
               UPDATE public.users u SET last_seen = m.at
                 FROM (SELECT u.id, newest.at
                         FROM public.users u
                         JOIN (SELECT user_id, max(last_seen) AS at FROM met GROUP BY user_id) newest
                           ON newest.user_id = u.id
                        WHERE u.last_seen IS NULL OR u.last_seen < newest.at - interval '5 minutes'
                        ORDER BY u.id FOR NO KEY UPDATE OF u) m
                WHERE u.id = m.id";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&ids, &times, &commits]).await?;
    Ok(())
}

/// Notes how many writes stay on the device.
pub async fn note_pending(
    client: &impl GenericClient,
    device: &DeviceId,
    pending: u32,
) -> Result<(), StoreError> {
    let sql = "UPDATE public.sync_metadata SET pending_outgoing_count = $2, updated_at = now()
                WHERE device_id = $1 AND pending_outgoing_count <> $2";
    let statement = client.prepare_cached(sql).await?;
    let pending = i32::try_from(pending).unwrap_or(i32::MAX);
    client.execute(&statement, &[&device.as_str(), &pending]).await?;
    Ok(())
}
