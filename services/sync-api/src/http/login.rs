//! `POST /api/auth/login`: a name and a password in, a log-in out.

use actix_web::{
    HttpResponse,
    web::{Data, Json},
};
use posduif_accounts::password;
use posduif_model::TenantId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{error::ApiError, users};
use crate::{app::App, code::Code, credential::jwt::Subject, store::credentials};

#[derive(Deserialize)]
pub struct Login {
    username: String,
    password: String,
    tenant_id: Option<TenantId>,
}

#[derive(Serialize)]
struct LoggedIn {
    token: String,
    user: Value,
    /// Seconds.
    expires_in: u64,
}

/// Answers alike, and after the same work, whether tenant, user or password is wrong.
pub async fn login(app: Data<App>, login: Json<Login>) -> Result<HttpResponse, ApiError> {
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
        return Err(ApiError::new(Code::Unauthorized, "username or password is wrong"));
    };
    let subject = Subject { tenant: tenant.id.clone(), user, log_ins };
    let token = app.jwt.issue(&subject, app.clock.now())?;
    let user = users::find(&app, tenant, user).await?;
    Ok(HttpResponse::Ok().json(LoggedIn { token, user, expires_in: app.jwt.lifetime_seconds() }))
}
