//! `/api/devices`: the devices that a web user let in, and the end of one.

use actix_web::{
    HttpResponse,
    web::{Path, Query},
};
use posduif_model::DeviceId;
use serde::Deserialize;
use serde_json::json;

use super::{auth::WebUser, error::ApiError};
use crate::{
    revocation::{self, RevocationError},
    store::devices,
};

const MOST: i64 = 1_000;

#[derive(Deserialize)]
pub struct Listing {
    limit: Option<i64>,
    offset: Option<i64>,
}

pub async fn list(web: WebUser, query: Query<Listing>) -> Result<HttpResponse, ApiError> {
    let (limit, offset) = (query.limit.unwrap_or(MOST).clamp(1, MOST), query.offset.unwrap_or(0).max(0));
    let listed =
        web.tenant.database.run(async |client| devices::list(client, web.user, limit, offset).await).await?;
    let (devices, total) = listed;
    Ok(HttpResponse::Ok().json(json!({"devices": devices, "total": total, "limit": limit, "offset": offset})))
}

pub async fn revoke(web: WebUser, id: Path<String>) -> Result<HttpResponse, ApiError> {
    // What cannot be the id of a device is the id of none.
    let device: DeviceId = id.parse().map_err(|_| ApiError::not_found())?;
    revocation::revoke(&web.tenant, web.user, &device).await?;
    tracing::info!(tenant = %web.tenant.id, %device, by = %web.user, "device revoked");
    Ok(HttpResponse::NoContent().finish())
}

impl From<RevocationError> for ApiError {
    fn from(error: RevocationError) -> Self {
        match error {
            RevocationError::Unknown => ApiError::not_found(),
            RevocationError::Store(error) => error.into(),
            RevocationError::Log(error) => error.into(),
        }
    }
}
