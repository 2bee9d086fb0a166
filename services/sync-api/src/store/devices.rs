//! `public.devices` with the hashes of their tokens in `posduif_engine.device_secrets`.

use deadpool_postgres::GenericClient;
use posduif_changelog::device_auth::DeviceAuth;
use posduif_model::{DeviceId, UserId};
use serde_json::Value;
use uuid::Uuid;

use super::StoreError;

/// Holds for devices that may act: neither they nor their users were shut out.
const ADMITTED: &str = "d.revoked_at IS NULL AND NOT EXISTS (
        SELECT FROM posduif_engine.accounts a WHERE a.user_id = d.user_id AND a.disabled_at IS NOT NULL)";

/// What proves a device that was not revoked; the hash is empty for one that never got a token.
pub async fn credential(
    client: &impl GenericClient,
    device: &DeviceId,
) -> Result<Option<DeviceAuth>, StoreError> {
    let sql = format!(
        "SELECT d.user_id, coalesce(s.token_hash, '') FROM public.devices d
           LEFT JOIN posduif_engine.device_secrets s ON s.device_id = d.id
          WHERE d.id = $1 AND {ADMITTED}"
    );
    let statement = client.prepare_cached(&sql).await?;
    let Some(row) = client.query_opt(&statement, &[&device.as_str()]).await? else { return Ok(None) };
    Ok(Some(DeviceAuth { user: UserId::new(row.try_get(0)?), token_hash: row.try_get(1)? }))
}

/// [`credential`] of many devices; those that were revoked, or never were, are left out.
pub async fn credentials(
    client: &impl GenericClient,
    devices: &[DeviceId],
) -> Result<Vec<(DeviceId, DeviceAuth)>, StoreError> {
    let sql = format!(
        "SELECT d.id, d.user_id, coalesce(s.token_hash, '') FROM public.devices d
           LEFT JOIN posduif_engine.device_secrets s ON s.device_id = d.id
          WHERE d.id = ANY ($1) AND {ADMITTED}"
    );
    let statement = client.prepare_cached(&sql).await?;
    let ids: Vec<&str> = devices.iter().map(DeviceId::as_str).collect();
    let mut found = Vec::with_capacity(ids.len());
    for row in client.query(&statement, &[&ids]).await? {
        let auth = DeviceAuth { user: UserId::new(row.try_get(1)?), token_hash: row.try_get(2)? };
        // Only ids that were asked for come back, so each can be read.
        found.extend(row.try_get::<_, &str>(0)?.parse().ok().map(|id| (id, auth)));
    }
    Ok(found)
}

/// Creates the device, or renews it if it already belongs to this user; `false` when it belongs to another.
///
/// A revoked device of the same user works again.
pub async fn enroll(
    client: &impl GenericClient,
    device: &DeviceId,
    user: UserId,
    info: &Value,
) -> Result<bool, StoreError> {
    let sql = "INSERT INTO public.devices AS d (id, user_id, device_info) VALUES ($1, $2, $3)
               ON CONFLICT (id) DO UPDATE SET device_info = excluded.device_info, revoked_at = NULL
                WHERE d.user_id = excluded.user_id
               RETURNING true";
    let statement = client.prepare_cached(sql).await?;
    let row = client.query_opt(&statement, &[&device.as_str(), &user.uuid(), &info]).await?;
    if row.is_none() {
        return Ok(false);
    }
    let sql = "INSERT INTO public.sync_metadata (device_id) VALUES ($1) ON CONFLICT (device_id) DO NOTHING";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&device.as_str()]).await?;
    Ok(true)
}

/// The user of a device that was not revoked.
pub async fn owner(client: &impl GenericClient, device: &DeviceId) -> Result<Option<UserId>, StoreError> {
    let sql = "SELECT user_id FROM public.devices WHERE id = $1 AND revoked_at IS NULL FOR UPDATE";
    let statement = client.prepare_cached(sql).await?;
    let found = client.query_opt(&statement, &[&device.as_str()]).await?;
    Ok(found.map(|row| row.try_get::<_, Uuid>(0)).transpose()?.map(UserId::new))
}

/// Replaces the device's token; the earlier one is worth nothing from the commit on.
pub async fn set_token(
    client: &impl GenericClient,
    device: &DeviceId,
    token_hash: &str,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO posduif_engine.device_secrets (device_id, token_hash) VALUES ($1, $2)
               ON CONFLICT (device_id) DO UPDATE SET token_hash = excluded.token_hash, created_at = now()";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&device.as_str(), &token_hash]).await?;
    Ok(())
}
