//! The credential of a request in, its tenant and user out.

use std::sync::Arc;

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{AUTHORIZATION, HeaderMap},
    web::Data,
};
use chrono::{DateTime, Utc};
use futures::future::LocalBoxFuture;
use posduif_changelog::device_auth::{Cached, DeviceAuth};
use posduif_model::{DeviceId, UserId};
use posduif_runtime::config;

use super::{
    error::ApiError,
    rate::{Standing, settle},
};
use crate::{app::App, code::Code, credential::token::Token, store::devices, tenant::Tenant};

const DEVICE_ID: &str = "x-device-id";

/// A logged-in web user.
pub struct WebUser {
    pub tenant: Arc<Tenant>,
    pub user: UserId,
}

/// An enrolled device.
pub struct Device {
    pub tenant: Arc<Tenant>,
    pub device: DeviceId,
    pub user: UserId,
}

/// Someone of a tenant, by either credential.
pub struct Member {
    pub tenant: Arc<Tenant>,
}

impl WebUser {
    pub(super) fn pay(standing: &Standing, web: &Self) -> Result<(), ApiError> {
        standing.web_user(&web.tenant.id, web.user)
    }
}

impl Device {
    fn pay(standing: &Standing, device: &Self) -> Result<(), ApiError> {
        standing.device(&device.tenant.id, &device.device, device.user)
    }
}

impl FromRequest for WebUser {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let found = app_of(request).and_then(|app| web_user(app, request.headers()));
        std::future::ready(settle(request, found, WebUser::pay))
    }
}

impl FromRequest for Device {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { settle(&request, device(&request).await, Device::pay) })
    }
}

impl FromRequest for Member {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let tenant = match request.headers().contains_key(DEVICE_ID) {
                true => settle(&request, device(&request).await, Device::pay)?.tenant,
                false => {
                    let found = web_user(app_of(&request)?, request.headers());
                    settle(&request, found, WebUser::pay)?.tenant
                }
            };
            Ok(Member { tenant })
        })
    }
}

fn app_of(request: &HttpRequest) -> Result<&Data<App>, ApiError> {
    request.app_data::<Data<App>>().ok_or_else(ApiError::misassembled)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn web_user(app: &App, headers: &HeaderMap) -> Result<WebUser, ApiError> {
    Ok(web_user_until(app, headers)?.0)
}

/// A logged-in web user, and until when that holds.
pub(super) fn web_user_until(app: &App, headers: &HeaderMap) -> Result<(WebUser, DateTime<Utc>), ApiError> {
    let missing = || ApiError::new(Code::Unauthorized, "log in and send Authorization: Bearer <token>");
    let (subject, expires_at) = app.jwt.verify_until(bearer(headers).ok_or_else(missing)?)?;
    let tenant = app.tenant(&subject.tenant).ok_or_else(missing)?.clone();
    Ok((WebUser { tenant, user: subject.user }, expires_at))
}

/// The hash of the device token that a request presents, where tokens count.
pub(super) fn presented_hash(app: &App, headers: &HeaderMap) -> Option<String> {
    match app.auth.device_auth {
        config::DeviceAuth::DeviceId => None,
        config::DeviceAuth::Token => Token::parse(bearer(headers)?).ok().map(|token| token.hash()),
    }
}

async fn device(request: &HttpRequest) -> Result<Device, ApiError> {
    let (app, headers) = (app_of(request)?, request.headers());
    let refused = || {
        ApiError::new(
            Code::Unauthorized,
            "send X-Device-ID and the device token that enrolment gave; enrol again if both are right",
        )
    };
    let device = headers.get(DEVICE_ID).and_then(|value| value.to_str().ok()).and_then(|id| id.parse().ok());
    let device: DeviceId = device.ok_or_else(refused)?;
    let (tenant, token) = match app.auth.device_auth {
        config::DeviceAuth::DeviceId => (app.only_tenant(), None),
        config::DeviceAuth::Token => {
            let token = bearer(headers).and_then(|text| Token::parse(text).ok()).ok_or_else(refused)?;
            (app.tenant(token.tenant()), Some(token))
        }
    };
    let tenant = tenant.ok_or_else(refused)?.clone();
    let is_proven = |auth: &DeviceAuth| token.as_ref().is_none_or(|token| token.matches(&auth.token_hash));
    // PostgreSQL is asked for nobody whose address has used up its limit with bad credentials.
    let leave = || Standing::of(request).map_or(Ok(()), |standing| standing.stranger());
    match credential(&tenant, &device, is_proven, leave).await? {
        Some(user) => Ok(Device { tenant, device, user }),
        None => Err(refused()),
    }
}

/// The device's user, from the cache where that proves the device, else from PostgreSQL.
async fn credential(
    tenant: &Tenant,
    device: &DeviceId,
    is_proven: impl Fn(&DeviceAuth) -> bool,
    leave: impl FnOnce() -> Result<(), ApiError>,
) -> Result<Option<UserId>, ApiError> {
    // Without Redis a device can still upload: PostgreSQL knows what the cache knows.
    let cached = match tenant.device_auth.get(device).await {
        Ok(cached) => Some(cached),
        Err(error) => {
            tracing::warn!(tenant = %tenant.id, %error, "device credentials are read from PostgreSQL, the cache is away");
            None
        }
    };
    if let Some(auth) = cached.as_ref().and_then(|cached| cached.auth.as_ref()).filter(|auth| is_proven(auth))
    {
        return Ok(Some(auth.user));
    }
    leave()?;
    let found = tenant.database.run(async |client| devices::credential(client, device).await).await?;
    let Some(auth) = found.filter(is_proven) else { return Ok(None) };
    if let Some(Cached { generation, .. }) = cached
        && let Err(error) = tenant.device_auth.put(device, &auth, &generation).await
    {
        tracing::warn!(tenant = %tenant.id, %error, "a device credential was not cached");
    }
    Ok(Some(auth.user))
}
