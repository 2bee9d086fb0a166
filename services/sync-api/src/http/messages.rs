//! `/api/messages`: what a web user sends, lists and reads.

use actix_web::{
    HttpResponse,
    web::{Data, Json, Path, Query},
};
use posduif_model::UserId;
use serde::Deserialize;
use serde_json::json;
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

#[derive(Deserialize)]
pub struct Draft {
    recipient_id: String,
    #[serde(default)]
    content: String,
}

#[derive(Deserialize)]
pub struct Listing {
    recipient_id: Option<UserId>,
    with: Option<UserId>,
    status: Option<String>,
    limit: Option<i64>,
    offset: Option<i64>,
}

pub async fn send(app: Data<App>, web: WebUser, draft: Json<Draft>) -> Result<HttpResponse, ApiError> {
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

pub async fn list(web: WebUser, query: Query<Listing>) -> Result<HttpResponse, ApiError> {
    let Listing { recipient_id, with, status, limit, offset } = query.into_inner();
    let status = status.filter(|status| !status.is_empty());
    if status.as_deref().is_some_and(|s| !["pending_sync", "synced", "read"].contains(&s)) {
        return Err(ApiError::invalid("status is pending_sync, synced or read"));
    }
    let filter = Filter { with, recipient: recipient_id, status };
    let (limit, offset) = (limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MOST), offset.unwrap_or(0).max(0));
    let listed = web
        .tenant
        .database
        .run(async |client| messages::list(client, web.user, &filter, limit, offset).await);
    let (messages, total) = listed.await?;
    Ok(HttpResponse::Ok()
        .json(json!({ "messages": messages, "total": total, "limit": limit, "offset": offset })))
}

pub async fn get(web: WebUser, id: Path<Uuid>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(find(&web, *id).await?))
}

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

pub async fn unread_count(web: WebUser) -> Result<HttpResponse, ApiError> {
    let counted = web.tenant.database.run(async |client| messages::count_unread(client, web.user).await);
    let unread = counted.await?;
    Ok(HttpResponse::Ok().json(json!({ "unread_count": unread })))
}

/// A message that this user sent or received; others do not exist for it.
async fn find(web: &WebUser, id: Uuid) -> Result<Message, ApiError> {
    let found = web.tenant.database.run(async |client| messages::find(client, web.user, id).await);
    found.await?.ok_or_else(ApiError::not_found)
}
