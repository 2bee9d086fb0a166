//! `public.users` with their accounts and devices, as the tenant's operator sees them.

use chrono::{DateTime, Utc};
use posduif_model::UserId;
use serde::Serialize;
use tokio_postgres::{Error, GenericClient, Row};

/// A user, without anything by which somebody could act as it.
#[derive(Clone, Debug, Serialize)]
pub struct Member {
    pub id: UserId,
    pub username: String,
    /// `web` or `mobile`.
    pub user_type: String,
    pub is_admin: bool,
    pub disabled_at: Option<DateTime<Utc>>,
    /// Those that are not revoked.
    pub devices: i64,
    pub created_at: DateTime<Utc>,
    pub last_seen: Option<DateTime<Utc>>,
}

/// All users by name.
pub async fn list(client: &impl GenericClient) -> Result<Vec<Member>, Error> {
    let sql = "SELECT u.id, u.username, u.user_type, coalesce(a.is_admin, false), a.disabled_at,
                      (SELECT count(*) FROM public.devices d WHERE d.user_id = u.id AND d.revoked_at IS NULL),
                      u.created_at, u.last_seen
                 FROM public.users u LEFT JOIN posduif_engine.accounts a ON a.user_id = u.id
                ORDER BY u.username";
    client.query(sql, &[]).await?.iter().map(member).collect()
}

fn member(row: &Row) -> Result<Member, Error> {
    Ok(Member {
        id: UserId::new(row.try_get(0)?),
        username: row.try_get(1)?,
        user_type: row.try_get(2)?,
        is_admin: row.try_get(3)?,
        disabled_at: row.try_get(4)?,
        devices: row.try_get(5)?,
        created_at: row.try_get(6)?,
        last_seen: row.try_get(7)?,
    })
}
