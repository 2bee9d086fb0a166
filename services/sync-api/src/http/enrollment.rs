//! `/api/enrollment`: a web user's permission in, an enrolled device out.

use actix_web::{
    HttpResponse,
    http::header::CACHE_CONTROL,
    web::{Bytes, Data, Json, Path},
};
use posduif_accounts::{invitation, token::Token, username};
use posduif_model::{DeviceId, UserId};
use qrcode::{QrCode, render::svg};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{auth::WebUser, error::ApiError};
use crate::{
    app::App,
    enrollment::{self, Candidate, EnrollmentError},
    store::{
        StoreError,
        enrollment_tokens::{self, EnrollmentToken},
        users,
    },
    tenant::Tenant,
};

#[derive(Default, Deserialize)]
pub struct Invitation {
    /// The mobile user whose new phone this is for.
    username: Option<String>,
}

impl Invitation {
    /// A body may be left out: nothing in it is required.
    fn read(body: &[u8]) -> Result<Self, ApiError> {
        if body.is_empty() {
            return Ok(Invitation::default());
        }
        serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid(format!("the body cannot be read: {error}")))
    }
}

#[derive(Deserialize)]
pub struct Completion {
    token: String,
    device_id: String,
    username: String,
    #[serde(default = "no_info")]
    device_info: Value,
}

fn no_info() -> Value {
    json!({})
}

pub async fn create(app: Data<App>, web: WebUser, body: Bytes) -> Result<HttpResponse, ApiError> {
    let invitation = Invitation::read(&body)?;
    let database = &web.tenant.database;
    let bound = match &invitation.username {
        None => None,
        Some(username) => {
            let username = username::parse(username)?;
            let user = database.run(async |client| users::find_mobile(client, &username).await).await?;
            Some(user.ok_or_else(ApiError::not_found)?)
        }
    };
    let token = Token::generate(&web.tenant.id);
    let (tenant, lifetime) = (&web.tenant.id, app.auth.enrollment_ttl);
    let created = database.run(async |client| {
        let client: &tokio_postgres::Client = client;
        Ok::<_, StoreError>(invitation::create(client, &token, tenant, web.user, bound, lifetime).await?)
    });
    let expires_at = created.await?;
    Ok(HttpResponse::Created().insert_header((CACHE_CONTROL, "no-store")).json(json!({
        "token": token.expose(),
        "qr_code_data": {
            "enrollment_url": url_of(&app, &token),
            "token": token.expose(),
            "tenant_id": web.tenant.id,
        },
        "expires_at": expires_at,
    })))
}

pub async fn get(app: Data<App>, token: Path<String>) -> Result<HttpResponse, ApiError> {
    let token = Token::parse(&token).map_err(|_| ApiError::not_found())?;
    let tenant = app.tenant(token.tenant()).ok_or_else(ApiError::not_found)?;
    let found = usable(tenant, &token, None).await?;
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(json!({
        "token": token.expose(),
        "tenant_id": tenant.id,
        "created_by": found.created_by,
        "expires_at": found.expires_at,
        "used_at": found.used_at,
        "valid": true,
    })))
}

pub async fn qr_code(app: Data<App>, web: WebUser, token: Path<String>) -> Result<HttpResponse, ApiError> {
    let token = Token::parse(&token).map_err(|_| ApiError::not_found())?;
    if *token.tenant() != web.tenant.id {
        return Err(ApiError::not_found());
    }
    usable(&web.tenant, &token, Some(web.user)).await?;
    let code = QrCode::new(url_of(&app, &token)).map_err(ApiError::unwritable)?;
    let image = code.render::<svg::Color<'_>>().min_dimensions(256, 256).build();
    Ok(HttpResponse::Ok()
        .content_type("image/svg+xml")
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(image))
}

pub async fn complete(app: Data<App>, completion: Json<Completion>) -> Result<HttpResponse, ApiError> {
    let Completion { token, device_id, username, device_info } = completion.into_inner();
    let device: DeviceId =
        device_id.parse().map_err(|error| ApiError::invalid(format!("device_id: {error}")))?;
    let username = username::parse(&username)?;
    let token = Token::parse(&token).map_err(|_| EnrollmentError::InvalidToken)?;
    let tenant = app.tenant(token.tenant()).ok_or(EnrollmentError::InvalidToken)?;
    let candidate = Candidate { device, username, info: device_info };
    let enrolled = enrollment::complete(tenant, &token, &candidate).await?;
    tracing::info!(tenant = %tenant.id, device = %candidate.device, user = %enrolled.user, "device enrolled");
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(json!({
        "user_id": enrolled.user,
        "device_id": candidate.device,
        "tenant_id": tenant.id,
        "device_token": enrolled.device_token.expose(),
        "app_instructions_url": app.api.public_url.join("/api/app-instructions"),
    })))
}

fn url_of(app: &App, token: &Token) -> String {
    app.api.public_url.join(&invitation::path(token))
}

/// A token that can still be used, of one creator where that is asked for.
async fn usable(
    tenant: &Tenant,
    token: &Token,
    creator: Option<UserId>,
) -> Result<EnrollmentToken, ApiError> {
    let found =
        tenant.database.run(async |client| enrollment_tokens::find(client, token.expose()).await).await?;
    let found = found.filter(|found| creator.is_none_or(|creator| creator == found.created_by));
    let found = found.ok_or_else(ApiError::not_found)?;
    match found.is_expired || found.is_void || found.used_at.is_some() {
        true => Err(EnrollmentError::InvalidToken.into()),
        false => Ok(found),
    }
}
