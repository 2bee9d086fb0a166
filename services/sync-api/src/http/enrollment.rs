//! `/api/enrollment`: a web user's permission in, an enrolled device out.

mod body;

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY},
    web::{Bytes, Data, Json, Path},
};
use posduif_accounts::{invitation, token::Token, username};
use posduif_model::{DeviceId, UserId};
use qrcode::{QrCode, render::svg};

use self::body::{Completion, Enrolled, Invitation, Invited, QrCodeData, Usable};
use super::{
    auth::WebUser,
    error::ApiError,
    hardening::INERT,
    rate::{By, TokenTry, Toll},
};
use crate::{
    app::App,
    code::Code,
    enrollment::{self, Candidate, EnrollmentError},
    store::{
        StoreError,
        enrollment_tokens::{self, EnrollmentToken},
        users,
    },
    tenant::Tenant,
};

/// Let a phone in
///
/// Makes a token that enrols one device within a few minutes (`auth.enrollment_ttl`). A body may be left out.
#[utoipa::path(
    post,
    path = "/api/enrollment/create",
    tag = "Enrolment",
    operation_id = "create_enrollment",
    security(("web" = [])),
    request_body(content = Option<Invitation>, description = "May be left out."),
    responses((status = 201, description = "The token.", body = Invited)),
)]
pub async fn create(
    app: Data<App>,
    web: WebUser,
    body: Bytes,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let web = web.still(&request).await?;
    let invitation = Invitation::read(&body)?;
    if let Some(toll) = Toll::of(&request) {
        let made = toll.rates.tries.invitation(&web.tenant.id, web.user).await;
        toll.judge(By::Enrollment, made)?;
    }
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
    Ok(HttpResponse::Created().insert_header((CACHE_CONTROL, "no-store")).json(Invited {
        token: token.expose().to_owned(),
        qr_code_data: QrCodeData {
            enrollment_url: url_of(&app, &token),
            token: token.expose().to_owned(),
            tenant_id: web.tenant.id.clone(),
        },
        expires_at,
    }))
}

/// Look an enrolment token up
#[utoipa::path(
    get,
    path = "/api/enrollment/{token}",
    tag = "Enrolment",
    operation_id = "get_enrollment",
    security(()),
    params(("token" = String, Path, description = "The token.")),
    responses((status = 200, description = "It can be used.", body = Usable)),
)]
pub async fn get(
    app: Data<App>,
    token: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let known = known(&app, &token);
    let toll = Toll::of(&request);
    let leave = leave_to_present(toll.as_deref(), known.as_ref()).await?;
    let shown = match &known {
        Some((tenant, token)) => show(tenant, token).await,
        None => Err(ApiError::not_found()),
    };
    if let (Err(error), Some(leave)) = (&shown, leave)
        && error.code() == Code::NotFound
    {
        leave.note_unknown().await;
    }
    shown
}

/// A token that one of the tenants may have made.
fn known(app: &App, text: &str) -> Option<(Arc<Tenant>, Token)> {
    let token = Token::parse(text).ok()?;
    Some((app.tenant(token.tenant())?, token))
}

/// Whoever presented many tokens that do not exist waits; `None` where nothing is limited.
async fn leave_to_present<'a>(
    toll: Option<&'a Toll>,
    known: Option<&(Arc<Tenant>, Token)>,
) -> Result<Option<TokenTry<'a>>, ApiError> {
    let Some(toll) = toll else { return Ok(None) };
    let tenant = known.map(|(tenant, _)| &tenant.id);
    toll.judge(By::Enrollment, toll.rates.tries.token(toll.address, tenant).await).map(Some)
}

async fn show(tenant: &Tenant, token: &Token) -> Result<HttpResponse, ApiError> {
    let found = usable(tenant, token, None).await?;
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(Usable {
        token: token.expose().to_owned(),
        tenant_id: tenant.id.clone(),
        created_by: found.created_by,
        expires_at: found.expires_at,
        used_at: found.used_at,
        valid: true,
    }))
}

/// Show an enrolment token as a QR code
///
/// For the web user who made it. The code holds `enrollment_url`.
#[utoipa::path(
    get,
    path = "/api/enrollment/{token}/qr.svg",
    tag = "Enrolment",
    operation_id = "get_enrollment_qr_code",
    security(("web" = [])),
    params(("token" = String, Path, description = "The token.")),
    responses((status = 200, description = "The image.", body = String, content_type = "image/svg+xml")),
)]
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
        .insert_header((CONTENT_SECURITY_POLICY, INERT))
        .body(image))
}

/// Enrol this device
///
/// A token works once, also under concurrent calls. The device that used it may repeat the call until the token expires,
/// because the answer may have been lost: it gets a new `device_token`, and the earlier one is refused from then on.
#[utoipa::path(
    post,
    path = "/api/enrollment/complete",
    tag = "Enrolment",
    operation_id = "complete_enrollment",
    security(()),
    request_body = Completion,
    responses((status = 200, description = "The device is enrolled.", body = Enrolled)),
)]
pub async fn complete(
    app: Data<App>,
    completion: Json<Completion>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let Completion { token, device_id, username, device_info } = completion.into_inner();
    let device: DeviceId =
        device_id.parse().map_err(|error| ApiError::invalid(format!("device_id: {error}")))?;
    let username = username::parse(&username)?;
    let known = known(&app, &token);
    let candidate = Candidate { device, username, info: device_info };
    let toll = Toll::of(&request);
    let leave = leave_to_present(toll.as_deref(), known.as_ref()).await?;
    let completed = match &known {
        Some((tenant, token)) => {
            enrollment::complete(tenant, token, &candidate).await.map(|enrolled| (tenant, enrolled))
        }
        None => Err(EnrollmentError::UnknownToken),
    };
    if let (Err(EnrollmentError::UnknownToken), Some(leave)) = (&completed, leave) {
        leave.note_unknown().await;
    }
    let (tenant, enrolled) = completed?;
    tracing::info!(tenant = %tenant.id, device = %candidate.device, user = %enrolled.user, "device enrolled");
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(Enrolled {
        user_id: enrolled.user,
        device_id: candidate.device,
        tenant_id: tenant.id.clone(),
        device_token: enrolled.device_token.expose().to_owned(),
        app_instructions_url: app.api.public_url.join("/api/app-instructions"),
    }))
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
