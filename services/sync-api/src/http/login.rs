//! `POST /api/auth/login`: a name and a password in, a log-in out.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json},
};
use posduif_accounts::password;
use posduif_model::TenantId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    error::ApiError,
    rate::{By, Toll},
    users,
};
use crate::{
    app::App,
    code::Code,
    credential::jwt::Subject,
    store::{credentials, users::User},
    tenant::Tenant,
};

/// Who wants to log in.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"username": "Bob", "password": "correct horse battery staple"}))]
pub struct Login {
    username: String,
    /// At most 1024 bytes.
    #[schema(max_length = 1024)]
    password: String,
    /// May be left out where the server has one tenant.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9_.-]{1,63}$")]
    tenant_id: Option<TenantId>,
}

/// A log-in that succeeded.
#[derive(Serialize, ToSchema)]
struct LoggedIn {
    /// For `Authorization: Bearer <token>`; opaque to clients.
    #[schema(example = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJmOGMxZWJkMCJ9.c2lnbmF0dXJl")]
    token: String,
    #[schema(value_type = User)]
    user: Value,
    /// Seconds for which the token is good.
    #[schema(example = 3600)]
    expires_in: u64,
}

/// Log in as a web user
///
/// Answers alike, and after the same work, whether tenant, user or password is wrong.
#[utoipa::path(
    post,
    path = "/api/auth/login",
    tag = "Log-in",
    operation_id = "log_in",
    security(()),
    request_body = Login,
    responses((status = 200, description = "The caller is logged in.", body = LoggedIn)),
)]
pub async fn login(
    app: Data<App>,
    login: Json<Login>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let Login { username, password, tenant_id } = login.into_inner();
    if password.len() > password::LONGEST {
        return Err(ApiError::invalid(format!("a password has at most {} bytes", password::LONGEST)));
    }
    let tenant =
        match &tenant_id {
            Some(id) => app.tenant(id),
            None => Some(app.only_tenant().ok_or_else(|| {
                ApiError::invalid("this server has several tenants; name yours in tenant_id")
            })?),
        };
    let Some(toll) = Toll::of(&request) else {
        return check(&app, tenant.as_ref(), username, password).await;
    };
    let named =
        tenant.as_ref().map(|tenant| &tenant.id).ok_or(tenant_id.as_ref().map_or("", TenantId::as_str));
    let log_in = toll.rates.tries.log_in(toll.address, named, &username).await;
    let log_in = toll.judge(By::Login, log_in)?;
    let outcome = check(&app, tenant.as_ref(), username, password).await;
    match &outcome {
        Ok(_) => log_in.succeeded().await,
        Err(error) if error.code() == Code::Unauthorized => {}
        Err(_) => log_in.forgive().await,
    }
    outcome
}

async fn check(
    app: &App,
    tenant: Option<&Arc<Tenant>>,
    username: String,
    password: String,
) -> Result<HttpResponse, ApiError> {
    let found = match tenant {
        // PostgreSQL cannot store a name with U+0000, so no user has it.
        Some(tenant) if !username.contains('\0') => {
            tenant.database.run(async |client| credentials::find(client, &username).await).await?
        }
        _ => None,
    };
    let stored = found.as_ref().map(|(_, hash, _)| hash.clone());
    let is_right = app.passwords.verify(password, stored).await?;
    let (Some(tenant), Some((user, _, log_ins)), true) = (tenant, found, is_right) else {
        // Neither the name that was tried, which may be a password in the wrong field, nor whether it exists.
        tracing::info!(tenant = tenant.map(|tenant| tenant.id.as_str()), "log-in refused");
        return Err(ApiError::new(Code::Unauthorized, "username or password is wrong"));
    };
    let subject = Subject { tenant: tenant.id.clone(), user, log_ins };
    let token = app.jwt.issue(&subject, app.clock.now())?;
    tracing::info!(tenant = %tenant.id, %user, "logged in");
    let user = users::find(app, tenant, false, user).await?;
    Ok(HttpResponse::Ok().json(LoggedIn { token, user, expires_in: app.jwt.lifetime_seconds() }))
}
