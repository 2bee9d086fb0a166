//! `/api/sync`: what a device asks for and what it brings.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, ContentType},
    web::{Data, Payload, Query},
};
use posduif_runtime::config::MAX_BATCH_SIZE;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::{auth::Device, error::ApiError, extract::large_json, request::Requests, written::Written};
use crate::{
    app::App,
    code::Code,
    sync::{
        SyncError, held,
        incoming::{self, Reader},
        outcome::Answer,
        outgoing,
        page::Page,
        stage::Since,
        status,
        upload::{MOST_ITEMS, Upload},
    },
};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Question {
    /// The cursor of the page before, or `start` for a snapshot. Left out, by apps that keep none: from the cursor that the
    /// server keeps for the device, which is a weaker promise.
    #[param(value_type = String, required = false, min_length = 1, example = "start")]
    since: Option<String>,
    /// A wish for the number of changes, brought into 1 to 500; a larger transaction is sent whole.
    #[param(value_type = i64, required = false, example = 100)]
    limit: Option<i64>,
}

/// Ask for what is new
///
/// Asked again and again with the cursor of the page before; at once where `has_more` is true. Pages with `snapshot: true`
/// up to `has_more: false` together replace everything that the device holds. A page never splits a transaction and holds one
/// final operation per key. Sending a cursor back confirms what came before it.
///
/// A 410 means: drop the cursor and the pages collected, fetch the app instructions, call with `since=start`. After a 503 the
/// same cursor stays good.
#[utoipa::path(
    get,
    path = "/api/sync/incoming",
    tag = "Sync",
    operation_id = "sync_incoming",
    security(("device_id" = [], "device_token" = [])),
    params(Question),
    responses((status = 200, description = "The page.", body = Page)),
)]
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

/// Ask how this device's sync stands
#[utoipa::path(
    get,
    path = "/api/sync/status",
    tag = "Sync",
    operation_id = "get_sync_status",
    security(("device_id" = [], "device_token" = [])),
    responses((status = 200, description = "How it stands.", body = status::Status)),
)]
pub async fn status(app: Data<App>, device: Device) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(status::of(&app, &device.tenant, &device.device, device.user).await?))
}

/// Bring what was written on this device
///
/// One transaction; a bad item is reported and leaves the others alone. Whatever gets no answer is sent again, the same body:
/// an upload is applied once. A version is (time, device id), the newest one wins, and the loser gets the winning row in
/// `conflicts`.
#[utoipa::path(
    post,
    path = "/api/sync/outgoing",
    tag = "Sync",
    operation_id = "sync_outgoing",
    security(("device_id" = [], "device_token" = [])),
    request_body(content = Upload, description = "At most 10,000 items."),
    responses((status = 200, description = "What became of each item.", body = Answer, example = json!({
        "synced_count": 4, "failed_count": 1,
        "failed_messages": [{
            "message_id": "5b0b6a3e-0f6e-4d58-9d0e-3f1c2d9a7e02", "code": "EMPTY_MESSAGE",
            "error": "a message needs content",
        }],
        "failed": [],
        "conflicts": [{"table": "public.tasks", "key": {"id": 7}, "row": {"id": 7, "title": "Bread", "done": false}}],
        "sync_timestamp": "2026-11-23T10:43:58.417Z", "lsn": "0/1C34140",
    }))),
)]
// The body is read only after the device has proven itself.
pub async fn outgoing(
    app: Data<App>,
    device: Device,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let most_bytes = app.api.max_decoded_body_bytes;
    let body: Box<RawValue> = large_json(&request, &mut payload.into_inner(), most_bytes).await?;
    let device = device.still(&request).await?;
    apply(&app, &device, body.get()).await
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
