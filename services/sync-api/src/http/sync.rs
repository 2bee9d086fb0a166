//! `/api/sync`: what a device asks for and what it brings.

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, ContentType},
    web::{Data, Json, Payload, Query},
};
use posduif_runtime::config::MAX_BATCH_SIZE;
use serde::Deserialize;

use super::{auth::Device, error::ApiError};
use crate::{
    app::App,
    code::Code,
    sync::{
        SyncError,
        incoming::{self, Reader},
        outgoing,
        stage::Since,
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
    device: Device,
    query: Query<Question>,
) -> Result<HttpResponse, ApiError> {
    let Device { tenant, device, user } = device;
    let since = match query.since.as_deref() {
        None | Some("") => {
            return Err(ApiError::invalid("since is required: a cursor, or start for a snapshot"));
        }
        Some("start") => Since::Start,
        // Of an earlier secret, of another device or user, or damaged: a snapshot heals each of them.
        Some(text) => {
            Since::Cursor(app.cursors.open(text, &tenant.id, &device, user).map_err(|_| SyncError::Expired)?)
        }
    };
    let limit = query.limit.unwrap_or(i64::from(app.sync.batch_size)).clamp(1, i64::from(MAX_BATCH_SIZE));
    let limit = usize::try_from(limit).unwrap_or(1);
    let reader = Reader { tenant: &tenant, device: &device, user, limit };
    let body = incoming::next_page(&app, &reader, &since).await?;
    Ok(HttpResponse::Ok()
        .content_type(ContentType::json())
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(body))
}

/// The body is read only after the device has proven itself.
pub async fn outgoing(
    app: Data<App>,
    device: Device,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, actix_web::Error> {
    let upload = Json::<Upload>::from_request(&request, &mut payload.into_inner()).await?.into_inner();
    Ok(apply(&app, &device, upload).await?)
}

async fn apply(app: &App, device: &Device, upload: Upload) -> Result<HttpResponse, ApiError> {
    if upload.len() > MOST_ITEMS {
        return Err(ApiError::new(
            Code::PayloadTooLarge,
            format!("an upload has at most {MOST_ITEMS} items; send the rest in another one"),
        ));
    }
    let now = app.clock.now();
    let receipt = outgoing::apply(&device.tenant, &device.device, device.user, upload, now).await?;
    tracing::debug!(
        tenant = %device.tenant.id,
        device = %device.device,
        synced = receipt.synced_count,
        failed = receipt.failed_count,
        "upload applied"
    );
    Ok(HttpResponse::Ok().json(receipt))
}
