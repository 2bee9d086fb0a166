//! `POST /api/users/{id}/disable` and `/enable`: an operator keeps somebody out, or lets in again.

use actix_web::{HttpResponse, web::Path};
use posduif_accounts::disabling;
use posduif_model::UserId;
use serde_json::json;

use super::{auth::Admin, error::ApiError};
use crate::{account_change::change, code::Code};

pub async fn disable(admin: Admin, id: Path<String>) -> Result<HttpResponse, ApiError> {
    let user = user(&id)?;
    if user == admin.user {
        // Whoever is left alone must be able to undo it.
        return Err(ApiError::new(Code::Conflict, "nobody disables their own account; ask another operator"));
    }
    let disabled =
        change(&admin.tenant, async |client, caches| disabling::disable(client, caches, user).await).await?;
    tracing::info!(tenant = %admin.tenant.id, %user, by = %admin.user, devices = disabled.devices_revoked, "user disabled");
    Ok(HttpResponse::Ok().json(json!({
        "user_id": user, "disabled_at": disabled.at, "devices_revoked": disabled.devices_revoked,
    })))
}

pub async fn enable(admin: Admin, id: Path<String>) -> Result<HttpResponse, ApiError> {
    let user = user(&id)?;
    if user == admin.user {
        return Err(ApiError::new(Code::Conflict, "your own account is enabled"));
    }
    change(&admin.tenant, async |client, caches| disabling::enable(client, caches, user).await).await?;
    tracing::info!(tenant = %admin.tenant.id, %user, by = %admin.user, "user enabled");
    Ok(HttpResponse::Ok().json(json!({"user_id": user, "disabled_at": null, "devices_revoked": 0})))
}

/// What cannot be the id of a user is the id of none.
fn user(id: &str) -> Result<UserId, ApiError> {
    id.parse().map_err(|_| ApiError::not_found())
}
