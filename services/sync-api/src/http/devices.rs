//! `/api/devices`: the devices that a web user let in, or an operator sees, and the end of one.

use actix_web::{
    HttpResponse,
    web::{Path, Query},
};
use posduif_accounts::{
    device::{self, Listed},
    revocation,
};
use posduif_model::DeviceId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{auth::WebUser, error::ApiError};
use crate::{account_change::change, store::StoreError};

const MOST: i64 = 1_000;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Listing {
    /// How many at most; brought into 1 to 1000.
    #[param(value_type = i64, required = false, example = 100)]
    limit: Option<i64>,
    /// How many to leave out at the beginning; below 0 is 0.
    #[param(value_type = i64, required = false, example = 0)]
    offset: Option<i64>,
}

/// A page of devices, the newest first.
#[derive(Serialize, ToSchema)]
struct Devices {
    devices: Vec<Listed>,
    /// How many there are in all.
    total: i64,
    limit: i64,
    offset: i64,
}

/// List the devices that you let in
///
/// Those that were enrolled with a token of the caller, the newest first; an operator sees all of the tenant.
#[utoipa::path(
    get,
    path = "/api/devices",
    tag = "Devices",
    operation_id = "list_devices",
    security(("web" = [])),
    params(Listing),
    responses((status = 200, description = "The page.", body = Devices)),
)]
pub async fn list(web: WebUser, query: Query<Listing>) -> Result<HttpResponse, ApiError> {
    let (limit, offset) = (query.limit.unwrap_or(MOST).clamp(1, MOST), query.offset.unwrap_or(0).max(0));
    let listed = web.tenant.database.run(async |client| {
        let client: &tokio_postgres::Client = client;
        Ok::<_, StoreError>(device::list(client, web.scope(), None, limit, offset).await?)
    });
    let (devices, total) = listed.await?;
    Ok(HttpResponse::Ok().json(Devices { devices, total, limit, offset }))
}

/// Revoke a device
///
/// Its requests are a 401 from then on, its live connections end within 5 seconds. Once more changes nothing. Where the
/// answer is a 503, nothing was revoked.
#[utoipa::path(
    delete,
    path = "/api/devices/{id}",
    tag = "Devices",
    operation_id = "revoke_device",
    security(("web" = [])),
    params(("id" = String, Path, description = "The device.", example = "phone-1")),
    responses((status = 204, description = "It is revoked.")),
)]
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
