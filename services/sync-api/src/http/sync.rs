//! `/api/sync`: what a device asks for and what it brings.

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, ContentType},
    web::{Data, Json, Payload, Query},
};
use posduif_runtime::config::MAX_BATCH_SIZE;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{auth::Device, error::ApiError, request::Requests, written::Written};
use crate::{
    app::App,
    code::Code,
    sync::{
        SyncError, held,
        incoming::{self, Reader},
        outgoing,
        stage::Since,
        status,
        upload::{MOST_ITEMS, Upload},
    },
};

#[derive(Deserialize)]
pub struct Question {
    since: Option<String>,
    limit: Option<i64>,
}

pub async fn incoming(
    app: Data<App>,
    requests: Data<Requests>,
    device: Device,
    query: Query<Question>,
) -> Result<HttpResponse, ApiError> {
    let limit = query.limit.unwrap_or(i64::from(app.sync.batch_size)).clamp(1, i64::from(MAX_BATCH_SIZE));
    let limit = usize::try_from(limit).unwrap_or(1);
    let Device { tenant, device, user } = &device;
    let reader = Reader { tenant, device, user: *user, limit, now: app.clock.now() };
    let mut response = HttpResponse::Ok();
    response.content_type(ContentType::json()).insert_header((CACHE_CONTROL, "no-store"));
    let since = match query.since.as_deref() {
        None => {
            let answer = held::next_page(&app, &reader).await?;
            let (tenant, device, in_flight) = (tenant.clone(), device.clone(), requests.in_flight.clone());
            let hold = move || drop(in_flight.spawn(held::hold(tenant, device, answer.cursor)));
            let body = Written::new(answer.body, hold);
            return Ok(response.body(body));
        }
        Some("") => {
            let empty = "since is empty: send a cursor, start for a snapshot, or leave it out";
            return Err(ApiError::invalid(empty));
        }
        Some("start") => Since::Start,
        // Of an earlier secret, of another device or user, or damaged: a snapshot heals each of them.
        Some(text) => {
            Since::Cursor(app.cursors.open(text, &tenant.id, device, *user).map_err(|_| SyncError::Expired)?)
        }
    };
    Ok(response.body(incoming::next_page(&app, &reader, &since).await?.body))
}

pub async fn status(app: Data<App>, device: Device) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(status::of(&app, &device.tenant, &device.device, device.user).await?))
}

/// The body is read only after the device has proven itself.
pub async fn outgoing(
    app: Data<App>,
    device: Device,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, actix_web::Error> {
    let body = Json::<Box<RawValue>>::from_request(&request, &mut payload.into_inner()).await?.into_inner();
    Ok(apply(&app, &device, body.get()).await?)
}

async fn apply(app: &App, device: &Device, body: &str) -> Result<HttpResponse, ApiError> {
    let upload: Upload<'_> = serde_json::from_str(body)
        .map_err(|error| ApiError::invalid(format!("the body cannot be read: {error}")))?;
    if upload.len() > MOST_ITEMS {
        return Err(ApiError::new(
            Code::PayloadTooLarge,
            format!("an upload has at most {MOST_ITEMS} items; send the rest in another one"),
        ));
    }
    let Device { tenant, device, user } = device;
    let answer = outgoing::apply(tenant, &app.rules, device, *user, &upload, body, app.clock.now()).await?;
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(answer))
}
