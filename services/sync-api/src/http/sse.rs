//! `/sse`: a caller in, events as they happen out.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_ENCODING, HeaderName},
    web::{Data, Path, Query},
};
use chrono::{DateTime, Utc};
use posduif_accounts::token::Token;
use posduif_changelog::LogError;
use posduif_model::{
    DeviceId, UserId,
    cursor::{Cursor, InvalidCursor, Resume},
};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{Object, ObjectBuilder, Type},
};

use super::{
    auth::{self, Device, LogIn, WebUser},
    error::ApiError,
    rate::settle,
};
use crate::{
    app::App,
    code::Code,
    credential::jwt::Subject,
    live::{
        Caller, Hub, OpenError, Payload, Wish,
        connection::Audience,
        join::Resumption,
        parsed::{BrowserEvent, DeviceEvent},
        stream::LiveStream,
        stream::browser,
    },
    sync::incoming::{self, Reader},
};

const TICKET_LIFETIME: Duration = Duration::from_secs(30);
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx and its like to pass every event on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Question {
    /// `full` sends the rows themselves, in events `change`.
    #[param(schema_with = wanted, required = false)]
    payload: Option<Wanted>,
    /// The cursor where the device is; the header `Last-Event-ID` wins over it. Without both the stream begins now.
    #[param(value_type = String, required = false)]
    since: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    Full,
    /// As if it were left out.
    #[serde(rename = "")]
    Hints,
}

fn wanted() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["full", ""])).build()
}

#[derive(Deserialize)]
pub struct Admission {
    ticket: Option<String>,
}

/// What lets a user in once.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"ticket": "dGVuYW50XzE.wKpH7fQeUaZ2yLgVjXo0RkQVgOg43SbI1zdxW8mNtrC", "expires_in": 30}))]
struct Ticket {
    ticket: String,
    /// Seconds.
    expires_in: u64,
}

/// Whom a ticket lets in: a log-in, as long as it is good.
#[derive(Serialize, Deserialize)]
struct Bearer {
    user: UserId,
    log_ins: i32,
    expires_at: DateTime<Utc>,
}

/// Listen as a device
///
/// Server-sent events. `connected` (`{"type","cursor","mode"}`) comes first. Per visible transaction that concerns the device
/// there is a `message` (`{"type":"new_message","message_id"}`) for each new message to its user, else a `sync_required`
/// (`{"type","pending_count"}`); with `payload=full` a `change`, whose data is a `Page`. `resync` (`{"type"}`): what the stream
/// had come to is gone, sync. `draining` (`{"type","retry_ms"}`): this replica stops, connect again. A line `: ping` every
/// 15 seconds means nothing. The `id` of an event is a cursor for `Last-Event-ID`. Revocation ends the stream within 5 seconds.
#[utoipa::path(
    get,
    path = "/sse/mobile/{device_id}",
    tag = "Live",
    operation_id = "listen_as_device",
    security(("device_id" = [], "device_token" = [])),
    params(
        ("device_id" = String, Path, description = "The device itself; another is a 404.", example = "phone-1"),
        Question,
    ),
    responses((
        status = 200,
        description = "Events without an end; the schema is that of one of them.",
        body = DeviceEvent,
        content_type = "text/event-stream",
        example = json!({"event": "message", "data": "{\"message_id\":\"2ee2416c-347d-4997-9ed5-a2ab9a7d84f4\",\"type\":\"new_message\"}", "id": "owXI2SfwQkEt"}),
    )),
)]
pub async fn mobile(
    app: Data<App>,
    hub: Data<Hub>,
    device: Device,
    id: Path<String>,
    question: Query<Question>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    if *id != device.device.as_str() {
        return Err(ApiError::not_found());
    }
    let payload = match question.payload {
        None | Some(Wanted::Hints) => Payload::Hints,
        Some(Wanted::Full) => Payload::Rows,
    };
    let Device { tenant, device, user } = device;
    let given = last_event_id(&request).or(question.into_inner().since);
    let from = resumed(given, |text| app.cursors.open(text, &tenant.id, &device, user));
    if let Resumption::Cursor(Ok(cursor)) = &from
        // Of a page that was sent as an event, and whose reader may never ask for another in words.
        && matches!(cursor.at, Resume::Stream { confirms: Some(_), .. })
    {
        let reader = Reader { tenant: &tenant, device: &device, user, limit: 1, now: app.clock.now() };
        // Whatever is wrong, the stream will tell; the next cursor that comes back proves this one's arrivals too.
        if let Err(error) = incoming::note_arrival(&app, &reader, cursor.clone()).await {
            tracing::debug!(tenant = %tenant.id, %error, "arrived messages are noted later");
        }
    }
    let token_hash = auth::presented_hash(&app, request.headers());
    let audience = Audience::Device { id: device, token_hash };
    let caller = Caller { tenant, user, audience };
    open(&hub, caller, Wish { from, payload }).await
}

/// Listen as a web user
///
/// Server-sent events. `connected` comes first; then `new_message` (`{"type","message_id","unread_count"}`), `message_read`
/// (`{"type","message_id"}`: one that the user sent) and `user_updated` (`{"type","user_id"}`), `resync` and `draining` as for a
/// device. The header `Last-Event-ID` resumes. A browser's EventSource sends no headers, hence the ticket.
#[utoipa::path(
    get,
    path = "/sse/web/{user_id}",
    tag = "Live",
    operation_id = "listen_as_web_user",
    security(("web" = []), ("ticket" = [])),
    params(("user_id" = Uuid, Path, description = "The caller itself; another user is a 404.")),
    responses((
        status = 200,
        description = "Events without an end; the schema is that of one of them.",
        body = BrowserEvent,
        content_type = "text/event-stream",
        example = json!({"event": "user_updated", "data": "{\"type\":\"user_updated\",\"user_id\":\"2a33d4a6-4c1f-44f5-ba4d-3f1a370c7a38\"}", "id": "owXI2SfwQkEt"}),
    )),
)]
pub async fn web(
    app: Data<App>,
    hub: Data<Hub>,
    id: Path<String>,
    admission: Query<Admission>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let log_in = match &admission.ticket {
        Some(ticket) => redeem(&app, ticket, &request).await?,
        None => auth::log_in(&request).await?,
    };
    let LogIn { web: WebUser { tenant, user, .. }, subject, expires_at } = log_in;
    if *id != user.to_string() {
        return Err(ApiError::not_found());
    }
    let browser: DeviceId = browser().ok_or_else(ApiError::misassembled)?;
    let given = last_event_id(&request);
    let from = resumed(given, |text| app.cursors.open(text, &tenant.id, &browser, user));
    let caller = Caller { tenant, user, audience: Audience::Web { subject, expires_at } };
    open(&hub, caller, Wish { from, payload: Payload::Hints }).await
}

/// Get a ticket
///
/// A browser's EventSource sends no headers: a ticket in the address lets it in instead, once.
#[utoipa::path(
    post,
    path = "/api/sse/ticket",
    tag = "Live",
    operation_id = "create_ticket",
    security(("web" = [])),
    responses((status = 201, description = "The ticket.", body = Ticket)),
)]
pub async fn ticket(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let LogIn { web: WebUser { tenant, .. }, subject, expires_at } = auth::log_in(&request).await?;
    let ticket = Token::generate(&tenant.id);
    let bearer = Bearer { user: subject.user, log_ins: subject.log_ins, expires_at };
    let bearer = serde_json::to_string(&bearer).map_err(ApiError::unwritable)?;
    tenant.tickets.put(&ticket.hash(), &bearer, TICKET_LIFETIME).await?;
    Ok(HttpResponse::Created()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(Ticket { ticket: ticket.expose().to_owned(), expires_in: TICKET_LIFETIME.as_secs() }))
}

async fn redeem(app: &App, ticket: &str, request: &HttpRequest) -> Result<LogIn, ApiError> {
    let taken = settle(request, take(app, ticket).await, |toll, (subject, _)| toll.web_user(subject));
    let (subject, expires_at) = taken?;
    Ok(LogIn { web: auth::still_good(app, &subject).await?, subject, expires_at })
}

/// The log-in behind a ticket, which is gone then.
async fn take(app: &App, ticket: &str) -> Result<(Subject, DateTime<Utc>), ApiError> {
    let refused =
        || ApiError::new(Code::Unauthorized, "the ticket is unknown, used or expired; ask for another");
    let ticket = Token::parse(ticket).map_err(|_| refused())?;
    let tenant = app.tenant(ticket.tenant()).ok_or_else(refused)?;
    let bearer = tenant.tickets.take(&ticket.hash()).await?.ok_or_else(refused)?;
    let Bearer { user, log_ins, expires_at } =
        serde_json::from_str(&bearer).map_err(|_| LogError::Corrupt("a ticket".to_owned()))?;
    Ok((Subject { tenant: tenant.id.clone(), user, log_ins }, expires_at))
}

fn last_event_id(request: &HttpRequest) -> Option<String> {
    Some(request.headers().get(LAST_EVENT_ID)?.to_str().ok()?.to_owned())
}

fn resumed(given: Option<String>, open: impl FnOnce(&str) -> Result<Cursor, InvalidCursor>) -> Resumption {
    match given.filter(|text| !text.is_empty()) {
        None => Resumption::Now,
        Some(text) => Resumption::Cursor(open(&text)),
    }
}

async fn open(hub: &Data<Hub>, caller: Caller, wish: Wish) -> Result<HttpResponse, ApiError> {
    let hub = hub.clone().into_inner();
    let stream: LiveStream = hub.open(caller, wish).await?;
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store, no-transform"))
        .insert_header((X_ACCEL_BUFFERING, "no"))
        // Compression would keep events back until it has gathered enough of them.
        .insert_header((CONTENT_ENCODING, "identity"))
        // Who comes back shall be spread anew, and not meet a replica that stops.
        .force_close()
        .streaming(stream.into_bytes()))
}

impl From<OpenError> for ApiError {
    fn from(error: OpenError) -> Self {
        let busy =
            |text: String| ApiError::new(Code::SyncError, text).retry_after(rand::rng().random_range(2..=10));
        match error {
            OpenError::Full(_) | OpenError::Draining => busy(error.to_string()),
            OpenError::Away => ApiError::new(Code::RedisError, error.to_string()),
            OpenError::Sync(error) => error.into(),
        }
    }
}
