//! `POST /api/users/{id}/disable` and `/enable`: an operator keeps somebody out, or lets in again.

use actix_web::{HttpResponse, web::Path};
use chrono::{DateTime, Utc};
use posduif_accounts::disabling;
use posduif_model::UserId;
use serde::Serialize;
use utoipa::ToSchema;

use super::{auth::Admin, error::ApiError};
use crate::{account_change::change, code::Code};

/// How an account stands after a change.
#[derive(Serialize, ToSchema)]
#[schema(as = AccountChange, example = json!({
    "user_id": "2a33d4a6-4c1f-44f5-ba4d-3f1a370c7a38", "disabled_at": "2026-11-23T10:44:00.120391Z", "devices_revoked": 1,
}))]
struct Account {
    #[schema(value_type = Uuid)]
    user_id: UserId,
    /// Null where the user may log in.
    disabled_at: Option<DateTime<Utc>>,
    /// Devices that this call has revoked.
    devices_revoked: usize,
}

/// Disable a user
///
/// For operators of the tenant. Its log-ins end with the next request, its devices are revoked, its live connections end within
/// 5 seconds. Once more changes nothing. Nobody disables their own account.
#[utoipa::path(
    post,
    path = "/api/users/{id}/disable",
    tag = "Users",
    operation_id = "disable_user",
    security(("web" = [])),
    params(("id" = String, Path, description = "The user.", format = Uuid)),
    responses((status = 200, description = "The user is disabled.", body = Account)),
)]
pub async fn disable(admin: Admin, id: Path<String>) -> Result<HttpResponse, ApiError> {
    let user = user(&id)?;
    if user == admin.user {
        // Whoever is left alone must be able to undo it.
        return Err(ApiError::new(Code::Conflict, "nobody disables their own account; ask another operator"));
    }
    let disabled =
        change(&admin.tenant, async |client, caches| disabling::disable(client, caches, user).await).await?;
    tracing::info!(tenant = %admin.tenant.id, %user, by = %admin.user, devices = disabled.devices_revoked, "user disabled");
    Ok(HttpResponse::Ok().json(Account {
        user_id: user,
        disabled_at: Some(disabled.at),
        devices_revoked: disabled.devices_revoked,
    }))
}

/// Enable a user
///
/// For operators of the tenant. The user may log in again; devices have to be enrolled again.
#[utoipa::path(
    post,
    path = "/api/users/{id}/enable",
    tag = "Users",
    operation_id = "enable_user",
    security(("web" = [])),
    params(("id" = String, Path, description = "The user.", format = Uuid)),
    responses((status = 200, description = "The user is enabled.", body = Account)),
)]
pub async fn enable(admin: Admin, id: Path<String>) -> Result<HttpResponse, ApiError> {
    let user = user(&id)?;
    if user == admin.user {
        return Err(ApiError::new(Code::Conflict, "your own account is enabled"));
    }
    change(&admin.tenant, async |client, caches| disabling::enable(client, caches, user).await).await?;
    tracing::info!(tenant = %admin.tenant.id, %user, by = %admin.user, "user enabled");
    Ok(HttpResponse::Ok().json(Account { user_id: user, disabled_at: None, devices_revoked: 0 }))
}

/// What cannot be the id of a user is the id of none.
fn user(id: &str) -> Result<UserId, ApiError> {
    id.parse().map_err(|_| ApiError::not_found())
}
