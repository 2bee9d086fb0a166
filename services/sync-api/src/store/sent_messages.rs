//! `public.messages` as devices write them: a message is stored once, and its content edited by its sender.

use deadpool_postgres::GenericClient;
use futures::try_join;
use posduif_model::UserId;
use tokio_postgres::types::ToSql;

use super::{StoreError, messages::NewMessage, row_versions::Version};

/// What became of a message of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is stored as told, now or from an earlier attempt, or was and has been deleted since.
    Stored,
    /// A newer edit of it has won.
    Lost,
    /// Its id belongs to another message.
    Taken,
    UnknownRecipient,
}

const KEY: &str = "sha256(convert_to(jsonb_build_array($1::uuid)::text, 'UTF8'))";

/// Stores a message, or edits the one with its id if this version is the newest.
///
/// # Errors
/// `Rejected` where the database takes no row and does not say why: a trigger of the application, most likely.
pub async fn put(
    client: &impl GenericClient,
    sender: UserId,
    message: &NewMessage,
    version: &Version<'_>,
) -> Result<Sent, StoreError> {
    let sql = format!(
        "WITH stored AS (
             INSERT INTO public.messages
                    (id, sender_id, recipient_id, content, created_at, updated_at, status, synced_at)
             SELECT $1, $2, u.id, $4, $5, $6,
                    CASE u.user_type WHEN 'web' THEN 'synced' ELSE 'pending_sync' END,
                    CASE u.user_type WHEN 'web' THEN now() END
               FROM public.users u
              WHERE u.id = $3 AND NOT EXISTS (SELECT FROM posduif_engine.row_versions
                                               WHERE table_name = 'public.messages' AND key = {KEY} AND deleted)
             ON CONFLICT (id) DO NOTHING RETURNING updated_at),
         noted AS (
             INSERT INTO posduif_engine.row_versions AS w (table_name, key, version, device_id, deleted, owner)
             SELECT 'public.messages', {KEY}, updated_at, $7, false, $2 FROM stored
             ON CONFLICT (table_name, key) DO UPDATE
                SET version = excluded.version, device_id = excluded.device_id, owner = excluded.owner, written_at = now()
              WHERE NOT w.deleted RETURNING 1)
         SELECT EXISTS (SELECT FROM stored), EXISTS (SELECT FROM noted)"
    );
    let statement = client.prepare_cached(&sql).await?;
    let (id, content, recipient) = (message.id, message.content.as_str(), message.recipient.uuid());
    let (sender, device) = (sender.uuid(), version.device.as_str());
    let row = client
        .query_one(
            &statement,
            &[&id, &sender, &recipient, &content, &message.created_at, &version.at, &device],
        )
        .await?;
    match (row.try_get(0)?, row.try_get(1)?) {
        (true, true) => Ok(Sent::Stored),
        (true, false) => Err(StoreError::Contended("the message was deleted meanwhile".to_owned())),
        (false, _) => edit(client, UserId::new(sender), message, version).await,
    }
}

/// Deals with a message that could not be inserted.
async fn edit(
    client: &impl GenericClient,
    sender: UserId,
    message: &NewMessage,
    version: &Version<'_>,
) -> Result<Sent, StoreError> {
    let lock = client.prepare_cached("SELECT FROM public.messages WHERE id = $1 FOR NO KEY UPDATE").await?;
    // A statement of its own: it sees what was committed while the first one waited for the lock.
    let judge = format!(
        "SELECT m.id IS NOT NULL,
                m.sender_id = $2 AND m.recipient_id = $3,
                m.content = $4,
                (m.updated_at, CASE WHEN w.version = m.updated_at AND NOT w.deleted THEN w.device_id ELSE '' END)
                    <= ($5::timestamptz, $6::text),
                coalesce(w.deleted, false), coalesce(w.owner = $2, false),
                EXISTS (SELECT FROM public.users WHERE id = $3)
           FROM (VALUES (1)) AS one
           LEFT JOIN public.messages m ON m.id = $1
           LEFT JOIN posduif_engine.row_versions w ON w.table_name = 'public.messages' AND w.key = {KEY}"
    );
    let judge = client.prepare_cached(&judge).await?;
    let (id, content, recipient) = (message.id, message.content.as_str(), message.recipient.uuid());
    let (sender, device) = (sender.uuid(), version.device.as_str());
    let compared: [&(dyn ToSql + Sync); 6] = [&id, &sender, &recipient, &content, &version.at, &device];
    let of_row: [&(dyn ToSql + Sync); 1] = [&id];
    let (locked, row) = try_join!(client.query_opt(&lock, &of_row), client.query_one(&judge, &compared))?;
    let (is_present, is_gone, was_own): (bool, bool, bool) =
        (row.try_get(0)?, row.try_get(4)?, row.try_get(5)?);
    if is_present != locked.is_some() {
        return Err(StoreError::Contended("the message came or went meanwhile".to_owned()));
    }
    if !is_present {
        return match row.try_get(6)? {
            _ if is_gone && was_own => Ok(Sent::Stored),
            _ if is_gone => Ok(Sent::Taken),
            false => Ok(Sent::UnknownRecipient),
            true => Err(StoreError::Rejected("no row".to_owned())),
        };
    }
    if !row.try_get::<_, bool>(1)? {
        return Ok(Sent::Taken);
    }
    match (row.try_get(2)?, row.try_get(3)?) {
        // What was not told when does not move a message that it repeats.
        (true, _) if !message.is_dated => Ok(Sent::Stored),
        (true, false) => Ok(Sent::Stored),
        (false, false) => Ok(Sent::Lost),
        (_, true) => {
            let sql = format!(
                "WITH edited AS (
                     UPDATE public.messages SET content = $3, updated_at = $4
                      WHERE id = $1 AND (content, updated_at) IS DISTINCT FROM ($3, $4)),
                 noted AS (
                     INSERT INTO posduif_engine.row_versions (table_name, key, version, device_id, deleted, owner)
                     VALUES ('public.messages', {KEY}, $4, $5, false, $2)
                     ON CONFLICT (table_name, key) DO UPDATE
                        SET version = excluded.version, device_id = excluded.device_id, deleted = false,
                            owner = excluded.owner, written_at = now())
                 SELECT"
            );
            let statement = client.prepare_cached(&sql).await?;
            client.execute(&statement, &[&id, &sender, &content, &version.at, &device]).await?;
            Ok(Sent::Stored)
        }
    }
}
