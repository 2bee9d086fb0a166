//! `/api/devices`: the devices that a web user let in, or an operator sees, and the end of one.

use actix_web::{
    HttpResponse,
    web::{Path, Query},
};
use posduif_accounts::{device, revocation};
use posduif_model::DeviceId;
use serde::Deserialize;
use serde_json::json;

use super::{auth::WebUser, error::ApiError};
use crate::{account_change::change, store::StoreError};

const MOST: i64 = 1_000;

#[derive(Deserialize)]
pub struct Listing {
    limit: Option<i64>,
    offset: Option<i64>,
}

pub async fn list(web: WebUser, query: Query<Listing>) -> Result<HttpResponse, ApiError> {
    let (limit, offset) = (query.limit.unwrap_or(MOST).clamp(1, MOST), query.offset.unwrap_or(0).max(0));
    let listed = web.tenant.database.run(async |client| {
        let client: &tokio_postgres::Client = client;
        Ok::<_, StoreError>(device::list(client, web.scope(), None, limit, offset).await?)
    });
    let (devices, total) = listed.await?;
    Ok(HttpResponse::Ok().json(json!({"devices": devices, "total": total, "limit": limit, "offset": offset})))
}

pub async fn revoke(web: WebUser, id: Path<String>) -> Result<HttpResponse, ApiError> {
    // What cannot be the id of a device is the id of none.
    let device: DeviceId = id.parse().map_err(|_| ApiError::not_found())?;
    change(&web.tenant, async |client, caches| {
        revocation::revoke(client, caches, web.scope(), &device).await
    })
    .await?;
    tracing::info!(tenant = %web.tenant.id, %device, by = %web.user, "device revoked");
    Ok(HttpResponse::NoContent().finish())
}
