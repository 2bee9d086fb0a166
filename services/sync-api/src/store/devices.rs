//! `public.devices` with the hashes of their tokens in `posduif_engine.device_secrets`.

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;
use posduif_changelog::device_auth::DeviceAuth;
use posduif_model::{DeviceId, UserId};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::StoreError;

/// What proves a device that was not revoked; the hash is empty for one that never got a token.
pub async fn credential(
    client: &impl GenericClient,
    device: &DeviceId,
) -> Result<Option<DeviceAuth>, StoreError> {
    let sql = "SELECT d.user_id, coalesce(s.token_hash, '') FROM public.devices d
                 LEFT JOIN posduif_engine.device_secrets s ON s.device_id = d.id
                WHERE d.id = $1 AND d.revoked_at IS NULL";
    let statement = client.prepare_cached(sql).await?;
    let Some(row) = client.query_opt(&statement, &[&device.as_str()]).await? else { return Ok(None) };
    Ok(Some(DeviceAuth { user: UserId::new(row.try_get(0)?), token_hash: row.try_get(1)? }))
}

/// [`credential`] of many devices; those that were revoked, or never were, are left out.
pub async fn credentials(
    client: &impl GenericClient,
    devices: &[DeviceId],
) -> Result<Vec<(DeviceId, DeviceAuth)>, StoreError> {
    let sql = "SELECT d.id, d.user_id, coalesce(s.token_hash, '') FROM public.devices d
                 LEFT JOIN posduif_engine.device_secrets s ON s.device_id = d.id
                WHERE d.id = ANY ($1) AND d.revoked_at IS NULL";
    let statement = client.prepare_cached(sql).await?;
    let ids: Vec<&str> = devices.iter().map(DeviceId::as_str).collect();
    let mut found = Vec::with_capacity(ids.len());
    for row in client.query(&statement, &[&ids]).await? {
        let auth = DeviceAuth { user: UserId::new(row.try_get(1)?), token_hash: row.try_get(2)? };
        // Only ids that were asked for come back, so each can be read.
        found.extend(row.try_get::<_, &str>(0)?.parse().ok().map(|id| (id, auth)));
    }
    Ok(found)
}

/// A device as the web user who let it in sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Device, example = json!({
    "id": "phone-1", "user_id": "2a33d4a6-4c1f-44f5-ba4d-3f1a370c7a38", "username": "Joe",
    "device_info": {"model": "Fairphone 5"}, "created_at": "2026-11-23T10:43:05.126804Z",
    "last_seen": "2026-11-23T10:43:58.417523Z", "revoked_at": null,
}))]
pub struct Listed {
    id: String,
    #[schema(value_type = Uuid)]
    user_id: UserId,
    username: String,
    /// What the device said of itself when it was enrolled.
    device_info: Value,
    created_at: DateTime<Utc>,
    last_seen: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

/// Holds for devices that were enrolled with a token of this web user.
const LET_IN_BY: &str =
    "EXISTS (SELECT FROM public.enrollment_tokens t WHERE t.device_id = d.id AND t.created_by = $1)";

/// A page of the devices that a web user let in, and how many there are in all.
pub async fn list(
    client: &impl GenericClient,
    by: UserId,
    limit: i64,
    offset: i64,
) -> Result<(Vec<Listed>, i64), StoreError> {
    let count = format!("SELECT count(*) FROM public.devices d WHERE {LET_IN_BY}");
    let count = client.prepare_cached(&count).await?;
    let total = client.query_one(&count, &[&by.uuid()]).await?.try_get(0)?;
    let page = format!(
        "SELECT d.id, d.user_id, u.username, d.device_info, d.created_at, d.last_seen, d.revoked_at
           FROM public.devices d JOIN public.users u ON u.id = d.user_id
          WHERE {LET_IN_BY} ORDER BY d.created_at DESC, d.id LIMIT $2 OFFSET $3"
    );
    let page = client.prepare_cached(&page).await?;
    let mut devices = Vec::new();
    for row in client.query(&page, &[&by.uuid(), &limit, &offset]).await? {
        devices.push(Listed {
            id: row.try_get(0)?,
            user_id: UserId::new(row.try_get(1)?),
            username: row.try_get(2)?,
            device_info: row.try_get(3)?,
            created_at: row.try_get(4)?,
            last_seen: row.try_get(5)?,
            revoked_at: row.try_get(6)?,
        });
    }
    Ok((devices, total))
}

/// Revokes a device that this web user let in, once; `false` where there is none.
pub async fn revoke(client: &impl GenericClient, by: UserId, device: &DeviceId) -> Result<bool, StoreError> {
    let sql = format!(
        "UPDATE public.devices d SET revoked_at = coalesce(d.revoked_at, now()) WHERE d.id = $2 AND {LET_IN_BY}"
    );
    let statement = client.prepare_cached(&sql).await?;
    Ok(client.execute(&statement, &[&by.uuid(), &device.as_str()]).await? > 0)
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
