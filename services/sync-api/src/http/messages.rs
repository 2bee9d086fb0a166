//! `/api/messages`: what a web user sends, lists and reads.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Path, Query},
};
use posduif_model::UserId;
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{Object, ObjectBuilder, Type},
};
use uuid::Uuid;

use super::{auth::WebUser, error::ApiError};
use crate::{
    app::App,
    code::Code,
    content::Content,
    store::{
        messages::{self, Filter, Insertion, Message, NewMessage},
        repeat_while_contended,
    },
};

const DEFAULT_LIMIT: i64 = 50;
const MOST: i64 = 100;

/// A message to be sent.
#[derive(Deserialize, ToSchema)]
#[schema(example = json!({"recipient_id": "2a33d4a6-4c1f-44f5-ba4d-3f1a370c7a38", "content": "Hello Joe"}))]
pub struct Draft {
    #[schema(value_type = Uuid)]
    recipient_id: String,
    /// Not blank, without U+0000, at most 64 KiB of UTF-8.
    #[serde(default)]
    #[schema(required, min_length = 1, max_length = 65536)]
    #[schema(
        pattern = r"^[^\u0000]*[^\u0000\u0009-\u000D\u0020\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000][^\u0000]*$"
    )]
    content: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Listing {
    /// Only messages to this user.
    #[param(value_type = Uuid, required = false)]
    recipient_id: Option<UserId>,
    /// Only messages exchanged with this user.
    #[param(value_type = Uuid, required = false)]
    with: Option<UserId>,
    /// Only messages in this state.
    #[param(schema_with = status, required = false)]
    status: Option<Status>,
    /// How many at most; 50 where it is left out, brought into 1 to 100.
    #[param(value_type = i64, required = false, example = 50)]
    limit: Option<i64>,
    /// How many to leave out at the beginning; below 0 is 0.
    #[param(value_type = i64, required = false, example = 0)]
    offset: Option<i64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    PendingSync,
    Synced,
    Read,
    /// As if it were left out.
    #[serde(rename = "")]
    Any,
}

fn status() -> Object {
    let known = ["pending_sync", "synced", "read", ""];
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(known)).build()
}

impl Status {
    fn stored(self) -> Option<&'static str> {
        match self {
            Status::PendingSync => Some("pending_sync"),
            Status::Synced => Some("synced"),
            Status::Read => Some("read"),
            Status::Any => None,
        }
    }
}

/// A page of messages, the newest first.
#[derive(Serialize, ToSchema)]
struct Messages {
    messages: Vec<Message>,
    /// How many there are in all.
    total: i64,
    limit: i64,
    offset: i64,
}

#[derive(Serialize, ToSchema)]
#[schema(example = json!({"unread_count": 1}))]
struct Unread {
    unread_count: i64,
}

/// Send a message
///
/// It is `pending_sync` to a mobile user and `synced` to a web user, for whom it has arrived once it is stored. The sender's
/// `last_message_sent` changes with it.
#[utoipa::path(
    post,
    path = "/api/messages",
    tag = "Messages",
    operation_id = "send_message",
    security(("web" = [])),
    request_body = Draft,
    responses((status = 201, description = "It is stored.", body = Message)),
)]
pub async fn send(
    app: Data<App>,
    web: WebUser,
    draft: Json<Draft>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let web = web.still(&request).await?;
    let Draft { recipient_id, content } = draft.into_inner();
    let content = Content::parse(content)?;
    let unknown = || ApiError::new(Code::InvalidRecipient, "the recipient does not exist");
    let recipient = recipient_id.parse().map_err(|_| unknown())?;
    let now = app.clock.now();
    let id = Uuid::new_v4();
    let new = NewMessage { id, recipient, content, created_at: now, updated_at: now, is_dated: false };
    let insertion = repeat_while_contended(async || {
        web.tenant.database.run(async |client| messages::insert(client, web.user, &new).await).await
    });
    match insertion.await? {
        Insertion::Stored => {}
        Insertion::UnknownRecipient => return Err(unknown()),
        Insertion::Taken => {
            return Err(ApiError::new(Code::Conflict, "the message's id is taken; send it again"));
        }
    }
    Ok(HttpResponse::Created().json(find(&web, new.id).await?))
}

/// List your messages
///
/// Those that the caller sent or received, the newest first.
#[utoipa::path(
    get,
    path = "/api/messages",
    tag = "Messages",
    operation_id = "list_messages",
    security(("web" = [])),
    params(Listing),
    responses((status = 200, description = "The page.", body = Messages)),
)]
pub async fn list(web: WebUser, query: Query<Listing>) -> Result<HttpResponse, ApiError> {
    let Listing { recipient_id, with, status, limit, offset } = query.into_inner();
    let status = status.and_then(Status::stored).map(str::to_owned);
    let filter = Filter { with, recipient: recipient_id, status };
    let (limit, offset) = (limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MOST), offset.unwrap_or(0).max(0));
    let listed = web
        .tenant
        .database
        .run(async |client| messages::list(client, web.user, &filter, limit, offset).await);
    let (messages, total) = listed.await?;
    Ok(HttpResponse::Ok().json(Messages { messages, total, limit, offset }))
}

/// Look a message up
///
/// Those of others do not exist for the caller.
#[utoipa::path(
    get,
    path = "/api/messages/{id}",
    tag = "Messages",
    operation_id = "get_message",
    security(("web" = [])),
    params(("id" = Uuid, Path, description = "The message.")),
    responses((status = 200, description = "The message.", body = Message)),
)]
pub async fn get(web: WebUser, id: Path<Uuid>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(find(&web, *id).await?))
}

/// Mark a message as read
///
/// Its recipient does that; once more changes nothing.
#[utoipa::path(
    put,
    path = "/api/messages/{id}/read",
    tag = "Messages",
    operation_id = "mark_message_read",
    security(("web" = [])),
    params(("id" = Uuid, Path, description = "The message.")),
    responses((status = 200, description = "The message, read.", body = Message)),
)]
pub async fn mark_read(web: WebUser, id: Path<Uuid>) -> Result<HttpResponse, ApiError> {
    let is_received = repeat_while_contended(async || {
        web.tenant.database.run(async |client| messages::mark_read(client, web.user, *id).await).await
    });
    let is_received = is_received.await?;
    let message = find(&web, *id).await?;
    if !is_received {
        return Err(ApiError::new(Code::Forbidden, "only its recipient reads a message"));
    }
    Ok(HttpResponse::Ok().json(message))
}

/// Count unread messages
#[utoipa::path(
    get,
    path = "/api/messages/unread-count",
    tag = "Messages",
    operation_id = "count_unread_messages",
    security(("web" = [])),
    responses((status = 200, description = "How many messages to the caller it has not read.", body = Unread)),
)]
pub async fn unread_count(web: WebUser) -> Result<HttpResponse, ApiError> {
    let counted = web.tenant.database.run(async |client| messages::count_unread(client, web.user).await);
    let unread = counted.await?;
    Ok(HttpResponse::Ok().json(Unread { unread_count: unread }))
}

/// A message that this user sent or received; others do not exist for it.
async fn find(web: &WebUser, id: Uuid) -> Result<Message, ApiError> {
    let found = web.tenant.database.run(async |client| messages::find(client, web.user, id).await);
    found.await?.ok_or_else(ApiError::not_found)
}
