//! `public.enrollment_tokens`: permissions to enrol one device.

use std::time::Duration;

use chrono::{DateTime, Utc};
use posduif_model::{TenantId, UserId};
use tokio_postgres::{Error, GenericClient};

use crate::token::Token;

/// Where a device that has the token goes, below the installation's public URL.
pub fn path(token: &Token) -> String {
    format!("/api/enrollment/{}", token.expose())
}

/// Stores a new token and returns when it expires; `bound` is the existing user whose new device this will be.
pub async fn create(
    client: &impl GenericClient,
    token: &Token,
    tenant: &TenantId,
    created_by: UserId,
    bound: Option<UserId>,
    lifetime: Duration,
) -> Result<DateTime<Utc>, Error> {
    let sql = "INSERT INTO public.enrollment_tokens (token, tenant_id, created_by, bound_user_id, expires_at)
               VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5)) RETURNING expires_at";
    let (bound, seconds) = (bound.map(UserId::uuid), lifetime.as_secs_f64());
    let row = client
        .query_one(sql, &[&token.expose(), &tenant.as_str(), &created_by.uuid(), &bound, &seconds])
        .await?;
    row.try_get(0)
}

/// Voids what the user gave out and what was given out for it.
///
/// The time of a completion under way may lie before this one's; that of the token does not lie after either.
pub(crate) async fn void_all_of(client: &impl GenericClient, user: UserId) -> Result<(), Error> {
    let sql = "UPDATE public.enrollment_tokens SET expires_at = least(expires_at, created_at)
                WHERE created_by = $1 OR bound_user_id = $1";
    client.execute(sql, &[&user.uuid()]).await?;
    Ok(())
}
