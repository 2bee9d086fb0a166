//! `users.online_status` and the times at which somebody was last there, in few writes.

use deadpool_postgres::{Client, GenericClient};
use posduif_changelog::{LogError, presence::PresenceBoard};
use posduif_model::{DeviceId, UserId};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::StoreError;

/// Users whose status was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    pub online: u64,
    pub offline: u64,
}

/// Presence could not be written; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Writes what the board says of these users, and when these devices were last there.
///
/// The board is asked while the users' rows are locked: of two replicas that write at the same time the later one asks
/// later, so an older word never replaces a newer one. Rows are locked in key order, as triggers do.
pub async fn settle(
    client: &mut Client,
    board: &PresenceBoard,
    users: &[UserId],
    devices: &[DeviceId],
) -> Result<Settled, PresenceError> {
    let transaction = client.transaction().await.map_err(StoreError::from)?;
    let ids: Vec<Uuid> = users.iter().map(|user| user.uuid()).collect();
    let lock = "SELECT FROM public.users WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE";
    execute(&transaction, lock, &[&ids]).await?;
    let present = board.present(users).await?;
    let of = |there: bool| -> Vec<Uuid> {
        ids.iter().zip(&present).filter(|(_, is)| **is == there).map(|(id, _)| *id).collect()
    };
    let online = "UPDATE public.users SET online_status = true WHERE id = ANY ($1) AND NOT online_status";
    let offline = "UPDATE public.users SET online_status = false, last_seen = now()
                    WHERE id = ANY ($1) AND online_status";
    let settled = Settled {
        online: execute(&transaction, online, &[&of(true)]).await?,
        offline: execute(&transaction, offline, &[&of(false)]).await?,
    };
    if !devices.is_empty() {
        let devices: Vec<&str> = devices.iter().map(DeviceId::as_str).collect();
        let seen = "UPDATE public.devices SET last_seen = now() WHERE id = ANY ($1)";
        execute(&transaction, seen, &[&devices]).await?;
    }
    transaction.commit().await.map_err(StoreError::from)?;
    Ok(settled)
}

async fn execute(
    client: &impl GenericClient,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<u64, StoreError> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, parameters).await?)
}

/// Users who are online as far as PostgreSQL knows, in key order after `after`.
pub async fn believed_online(
    client: &impl GenericClient,
    after: Uuid,
    limit: i64,
) -> Result<Vec<UserId>, StoreError> {
    let sql = "SELECT id FROM public.users WHERE online_status AND id > $1 ORDER BY id LIMIT $2";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&after, &limit]).await?;
    rows.iter().map(|row| Ok(UserId::new(row.try_get(0)?))).collect()
}
