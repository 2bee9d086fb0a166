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
use posduif_accounts::{device::Scope, token::Token};
use posduif_changelog::device_auth::{Cached, DeviceAuth};
use posduif_model::{DeviceId, UserId};
use posduif_runtime::config;

use super::{
    error::ApiError,
    rate::{Toll, settle},
};
use crate::{accounts, app::App, code::Code, credential::jwt::Subject, store::devices, tenant::Tenant};

pub(super) const DEVICE_ID: &str = "x-device-id";

/// A logged-in web user.
pub struct WebUser {
    pub tenant: Arc<Tenant>,
    pub user: UserId,
    /// Operates the tenant.
    pub is_admin: bool,
}

impl WebUser {
    /// Whose devices it sees and may revoke.
    pub fn scope(&self) -> Scope {
        if self.is_admin { Scope::All } else { Scope::LetInBy(self.user) }
    }

    /// The same, unless the log-in has ended while the body arrived: that may take long, and many requests may wait.
    pub(super) async fn still(self, request: &HttpRequest) -> Result<Self, ApiError> {
        let app = app_of(request)?;
        let (subject, _) = app.jwt.verify_until(bearer(request.headers()).unwrap_or_default())?;
        still_good(app, &subject).await
    }
}

/// A web user who operates the tenant.
pub struct Admin {
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
    /// Operates the tenant.
    pub is_admin: bool,
}

impl Device {
    fn pay(toll: &Toll, device: &Self) -> Result<(), ApiError> {
        toll.device(&device.tenant.id, &device.device, device.user)
    }

    /// As [`WebUser::still`].
    pub(super) async fn still(self, request: &HttpRequest) -> Result<Self, ApiError> {
        device(request).await
    }
}

impl FromRequest for WebUser {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { Ok(log_in(&request).await?.web) })
    }
}

impl FromRequest for Admin {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let WebUser { tenant, user, is_admin } = log_in(&request).await?.web;
            match is_admin {
                true => Ok(Admin { tenant, user }),
                false => Err(ApiError::new(Code::Forbidden, "only an operator of the tenant may do this")),
            }
        })
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
            if request.headers().contains_key(DEVICE_ID) {
                let device = settle(&request, device(&request).await, Device::pay)?;
                return Ok(Member { tenant: device.tenant, is_admin: false });
            }
            let WebUser { tenant, is_admin, .. } = log_in(&request).await?.web;
            Ok(Member { tenant, is_admin })
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

/// A log-in that is still good.
pub(super) struct LogIn {
    pub web: WebUser,
    pub subject: Subject,
    pub expires_at: DateTime<Utc>,
}

/// The log-in that a request presents.
pub(super) async fn log_in(request: &HttpRequest) -> Result<LogIn, ApiError> {
    let app = app_of(request)?;
    let missing = || ApiError::new(Code::Unauthorized, "log in and send Authorization: Bearer <token>");
    let presented = bearer(request.headers()).ok_or_else(missing);
    let verified = presented.and_then(|token| Ok(app.jwt.verify_until(token)?));
    let (subject, expires_at) = settle(request, verified, |toll, (subject, _)| toll.web_user(subject))?;
    let web = still_good(app, &subject).await?;
    Ok(LogIn { web, subject, expires_at })
}

/// The user of a log-in, if nothing has ended it.
pub(super) async fn still_good(app: &App, subject: &Subject) -> Result<WebUser, ApiError> {
    let ended = || ApiError::new(Code::Unauthorized, "the log-in has ended; log in again");
    let (tenant, user) = (app.tenant(&subject.tenant).ok_or_else(ended)?, subject.user);
    let found = accounts::of(&tenant, &[user]).await?;
    let account = found.get(&user).filter(|account| accounts::is_good(subject, account));
    let is_admin = account.ok_or_else(ended)?.is_admin;
    Ok(WebUser { tenant, user, is_admin })
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
    let tenant = tenant.ok_or_else(refused)?;
    let is_proven = |auth: &DeviceAuth| token.as_ref().is_none_or(|token| token.matches(&auth.token_hash));
    // PostgreSQL is asked for nobody whose address has used up its limit with bad credentials.
    let leave = || Toll::of(request).map_or(Ok(()), |toll| toll.stranger());
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
    let cached = match tenant.caches.devices.get(device).await {
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
        && let Err(error) = tenant.caches.devices.put(device, &auth, &generation).await
    {
        tracing::warn!(tenant = %tenant.id, %error, "a device credential was not cached");
    }
    Ok(Some(auth.user))
}
