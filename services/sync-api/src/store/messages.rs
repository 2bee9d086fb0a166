//! `public.messages`.

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;
use posduif_model::UserId;
use serde::Serialize;
use tokio_postgres::{Error, Row};
use utoipa::ToSchema;
use uuid::Uuid;

use super::StoreError;
use crate::content::Content;

/// A message as its sender and its recipient see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "2ee2416c-347d-4997-9ed5-a2ab9a7d84f4", "sender_id": "f8c1ebd0-0c52-487d-a2a8-8b90bb90b1af",
    "recipient_id": "2a33d4a6-4c1f-44f5-ba4d-3f1a370c7a38", "content": "Hello Joe", "status": "pending_sync",
    "created_at": "2026-11-23T10:43:55.221749Z", "updated_at": "2026-11-23T10:43:55.221749Z", "synced_at": null,
    "read_at": null,
}))]
pub struct Message {
    pub id: Uuid,
    #[schema(value_type = Uuid)]
    pub sender_id: UserId,
    #[schema(value_type = Uuid)]
    pub recipient_id: UserId,
    pub content: String,
    /// `pending_sync` until a device of its recipient has it, then `synced`, then `read`.
    pub status: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub synced_at: Option<DateTime<Utc>>,
    pub read_at: Option<DateTime<Utc>>,
}

/// A message to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    pub id: Uuid,
    pub recipient: UserId,
    pub content: Content,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// Whether its times are its sender's, and not those of its arrival.
    pub is_dated: bool,
}

/// What became of a message to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// It is stored, now or from an earlier attempt.
    Stored,
    /// Its id belongs to another message.
    Taken,
    UnknownRecipient,
}

/// Which of a user's messages a list holds.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Exchanged with this user, in either direction.
    pub with: Option<UserId>,
    pub recipient: Option<UserId>,
    pub status: Option<String>,
}

const COLUMNS: &str =
    "id, sender_id, recipient_id, content, status, created_at, updated_at, synced_at, read_at";

fn message(row: &Row) -> Result<Message, Error> {
    Ok(Message {
        id: row.try_get("id")?,
        sender_id: UserId::new(row.try_get("sender_id")?),
        recipient_id: UserId::new(row.try_get("recipient_id")?),
        content: row.try_get("content")?,
        status: row.try_get("status")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        synced_at: row.try_get("synced_at")?,
        read_at: row.try_get("read_at")?,
    })
}

/// Stores a message unless it is stored already; a message to a web user has arrived once it is stored.
pub async fn insert(
    client: &impl GenericClient,
    sender: UserId,
    new: &NewMessage,
) -> Result<Insertion, StoreError> {
    let sql = "INSERT INTO public.messages
                      (id, sender_id, recipient_id, content, created_at, updated_at, status, synced_at)
               SELECT $1, $2, u.id, $4, $5, $6,
                      CASE u.user_type WHEN 'web' THEN 'synced' ELSE 'pending_sync' END,
                      CASE u.user_type WHEN 'web' THEN now() END
                 FROM public.users u WHERE u.id = $3
               ON CONFLICT (id) DO NOTHING";
    let statement = client.prepare_cached(sql).await?;
    let (sender, recipient, content) = (sender.uuid(), new.recipient.uuid(), new.content.as_str());
    let stored = client
        .execute(&statement, &[&new.id, &sender, &recipient, &content, &new.created_at, &new.updated_at])
        .await?;
    if stored > 0 {
        return Ok(Insertion::Stored);
    }
    let sql = "SELECT sender_id = $2 AND recipient_id = $3 AND content = $4
                 FROM public.messages WHERE id = $1";
    let statement = client.prepare_cached(sql).await?;
    match client.query_opt(&statement, &[&new.id, &sender, &recipient, &content]).await? {
        None => Ok(Insertion::UnknownRecipient),
        Some(row) if row.try_get(0)? => Ok(Insertion::Stored),
        Some(_) => Ok(Insertion::Taken),
    }
}

/// A message that the user sent or received.
pub async fn find(
    client: &impl GenericClient,
    user: UserId,
    id: Uuid,
) -> Result<Option<Message>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM public.messages WHERE id = $2 AND $1 IN (sender_id, recipient_id)");
    let statement = client.prepare_cached(&sql).await?;
    let found = client.query_opt(&statement, &[&user.uuid(), &id]).await?;
    Ok(found.as_ref().map(message).transpose()?)
}

/// A page of the messages that the user sent or received, newest first, and how many there are in all.
pub async fn list(
    client: &impl GenericClient,
    user: UserId,
    filter: &Filter,
    limit: i64,
    offset: i64,
) -> Result<(Vec<Message>, i64), StoreError> {
    let matching = "FROM public.messages
                     WHERE (sender_id = $1 OR recipient_id = $1)
                       AND ($2::uuid IS NULL OR sender_id = $2 OR recipient_id = $2)
                       AND ($3::uuid IS NULL OR recipient_id = $3)
                       AND ($4::text IS NULL OR status = $4)";
    let (user, with, recipient) =
        (user.uuid(), filter.with.map(UserId::uuid), filter.recipient.map(UserId::uuid));
    let count = client.prepare_cached(&format!("SELECT count(*) {matching}")).await?;
    let total = client.query_one(&count, &[&user, &with, &recipient, &filter.status]).await?.try_get(0)?;
    let page = format!("SELECT {COLUMNS} {matching} ORDER BY created_at DESC, id DESC LIMIT $5 OFFSET $6");
    let page = client.prepare_cached(&page).await?;
    let rows = client.query(&page, &[&user, &with, &recipient, &filter.status, &limit, &offset]).await?;
    Ok((rows.iter().map(message).collect::<Result<_, _>>()?, total))
}

/// Marks a received message as read, once; `false` when the user received no such message.
pub async fn mark_read(client: &impl GenericClient, user: UserId, id: Uuid) -> Result<bool, StoreError> {
    let sql = "UPDATE public.messages
                  SET status = 'read', read_at = now(), synced_at = coalesce(synced_at, now())
                WHERE id = $2 AND recipient_id = $1 AND status <> 'read'";
    let statement = client.prepare_cached(sql).await?;
    if client.execute(&statement, &[&user.uuid(), &id]).await? > 0 {
        return Ok(true);
    }
    let sql = "SELECT FROM public.messages WHERE id = $2 AND recipient_id = $1";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query_opt(&statement, &[&user.uuid(), &id]).await?.is_some())
}

/// The status of a message that none of its recipient's devices has.
pub const PENDING: &str = "pending_sync";

/// The most messages whose arrival with one snapshot is noted; those beyond are noted when they are read.
const MOST_ARRIVING: i64 = 100_000;

/// The messages to the user that none of its devices has, newest first.
pub async fn pending(client: &impl GenericClient, user: UserId) -> Result<Vec<Uuid>, StoreError> {
    let sql = "SELECT id FROM public.messages WHERE recipient_id = $1 AND status = $2
                ORDER BY created_at DESC LIMIT $3";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&user.uuid(), &PENDING, &MOST_ARRIVING]).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// Notes that messages to the user have arrived, each once. Rows are locked in key order: two devices of a user may
/// confirm the same messages at once.
pub async fn mark_synced(
    client: &impl GenericClient,
    user: UserId,
    messages: &[Uuid],
) -> Result<u64, StoreError> {
    let sql = "UPDATE public.messages m SET status = 'synced', synced_at = now()
                 FROM (SELECT id FROM public.messages
                        WHERE id = ANY ($2) AND recipient_id = $1 AND status = 'pending_sync'
                        ORDER BY id FOR NO KEY UPDATE) arrived
                WHERE m.id = arrived.id";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, &[&user.uuid(), &messages]).await?)
}

/// Messages to the user that it has not read.
pub async fn count_unread(client: &impl GenericClient, user: UserId) -> Result<i64, StoreError> {
    let sql = "SELECT count(*) FROM public.messages WHERE recipient_id = $1 AND status <> 'read'";
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query_one(&statement, &[&user.uuid()]).await?.try_get(0)?)
}
