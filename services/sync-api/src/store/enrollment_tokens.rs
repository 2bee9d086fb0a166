//! `public.enrollment_tokens`.

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;
use posduif_model::{DeviceId, UserId};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::StoreError;

/// A permission to enrol one device.
#[derive(Clone, Debug)]
pub struct EnrollmentToken {
    pub id: Uuid,
    pub created_by: UserId,
    /// The existing user whose new device this will be.
    pub bound_user: Option<UserId>,
    pub expires_at: DateTime<Utc>,
    /// By PostgreSQL's clock, the only one that every replica shares.
    pub is_expired: bool,
    /// Who gave it out is disabled, or whom it was given out for.
    pub is_void: bool,
    pub used_at: Option<DateTime<Utc>>,
    /// The device that used it; no valid device id equals one that plain SQL may have put here instead.
    pub device: Option<String>,
}

const COLUMNS: &str =
    "id, created_by, bound_user_id, expires_at, expires_at <= now() AS is_expired, used_at, device_id,
                       EXISTS (SELECT FROM posduif_engine.accounts a
                                WHERE a.user_id IN (created_by, bound_user_id)
                                  AND a.disabled_at IS NOT NULL) AS is_void";

fn token(row: &Row) -> Result<EnrollmentToken, Error> {
    Ok(EnrollmentToken {
        id: row.try_get("id")?,
        created_by: UserId::new(row.try_get("created_by")?),
        bound_user: row.try_get::<_, Option<Uuid>>("bound_user_id")?.map(UserId::new),
        expires_at: row.try_get("expires_at")?,
        is_expired: row.try_get("is_expired")?,
        is_void: row.try_get("is_void")?,
        used_at: row.try_get("used_at")?,
        device: row.try_get("device_id")?,
    })
}

pub async fn find(client: &impl GenericClient, text: &str) -> Result<Option<EnrollmentToken>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM public.enrollment_tokens WHERE token = $1");
    let statement = client.prepare_cached(&sql).await?;
    let found = client.query_opt(&statement, &[&text]).await?;
    Ok(found.as_ref().map(token).transpose()?)
}

/// Finds a token and keeps every other completion of it waiting until the transaction ends.
pub async fn lock(client: &impl GenericClient, text: &str) -> Result<Option<EnrollmentToken>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM public.enrollment_tokens WHERE token = $1 FOR UPDATE");
    let statement = client.prepare_cached(&sql).await?;
    let found = client.query_opt(&statement, &[&text]).await?;
    Ok(found.as_ref().map(token).transpose()?)
}

/// Whether the device was enrolled by another token since, which ended what this one gave.
pub async fn is_superseded(
    client: &impl GenericClient,
    id: Uuid,
    device: &DeviceId,
) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT FROM public.enrollment_tokens later JOIN public.enrollment_tokens t ON t.id = $1
                               WHERE later.device_id = $2 AND later.id <> t.id AND later.used_at >= t.used_at)";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query_one(&statement, &[&id, &device.as_str()]).await?.try_get(0)?)
}

pub async fn mark_used(client: &impl GenericClient, id: Uuid, device: &DeviceId) -> Result<(), StoreError> {
    let sql = "UPDATE public.enrollment_tokens SET used_at = now(), device_id = $2 WHERE id = $1";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&id, &device.as_str()]).await?;
    Ok(())
}
