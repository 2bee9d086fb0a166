//! `public.devices` as those see it who manage them.

use chrono::{DateTime, Utc};
use posduif_model::{DeviceId, UserId};
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::{Error, GenericClient, Row};
use utoipa::ToSchema;

/// Whose devices are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of the tenant: for its operators.
    All,
    /// Those that were enrolled with a token of this web user.
    LetInBy(UserId),
}

impl Scope {
    /// A parameter of [`WITHIN`].
    fn creator(self) -> Option<uuid::Uuid> {
        match self {
            Scope::All => None,
            Scope::LetInBy(user) => Some(user.uuid()),
        }
    }
}

/// Holds for devices within the scope that the first parameter names.
const WITHIN: &str = "($1::uuid IS NULL OR EXISTS (SELECT FROM public.enrollment_tokens t
                                                    WHERE t.device_id = d.id AND t.created_by = $1))";

/// A device as those see it who may revoke it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Device, example = json!({
    "id": "phone-1", "user_id": "2a33d4a6-4c1f-44f5-ba4d-3f1a370c7a38", "username": "Joe",
    "device_info": {"model": "Fairphone 5"}, "created_at": "2026-11-23T10:43:05.126804Z",
    "last_seen": "2026-11-23T10:43:58.417523Z", "revoked_at": null,
}))]
pub struct Listed {
    pub id: String,
    #[schema(value_type = Uuid)]
    pub user_id: UserId,
    pub username: String,
    /// What the device said of itself when it was enrolled.
    pub device_info: Value,
    pub created_at: DateTime<Utc>,
    pub last_seen: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

fn listed(row: &Row) -> Result<Listed, Error> {
    Ok(Listed {
        id: row.try_get(0)?,
        user_id: UserId::new(row.try_get(1)?),
        username: row.try_get(2)?,
        device_info: row.try_get(3)?,
        created_at: row.try_get(4)?,
        last_seen: row.try_get(5)?,
        revoked_at: row.try_get(6)?,
    })
}

/// A page of devices, the newest first, and how many there are in all; of one user where one is named.
pub async fn list(
    client: &impl GenericClient,
    scope: Scope,
    user: Option<UserId>,
    limit: i64,
    offset: i64,
) -> Result<(Vec<Listed>, i64), Error> {
    let (creator, user) = (scope.creator(), user.map(UserId::uuid));
    let of = format!("{WITHIN} AND ($2::uuid IS NULL OR d.user_id = $2)");
    let count = format!("SELECT count(*) FROM public.devices d WHERE {of}");
    let total = client.query_one(&count, &[&creator, &user]).await?.try_get(0)?;
    let page = format!(
        "SELECT d.id, d.user_id, u.username, d.device_info, d.created_at, d.last_seen, d.revoked_at
           FROM public.devices d JOIN public.users u ON u.id = d.user_id
          WHERE {of} ORDER BY d.created_at DESC, d.id LIMIT $3 OFFSET $4"
    );
    let rows = client.query(&page, &[&creator, &user, &limit, &offset]).await?;
    Ok((rows.iter().map(listed).collect::<Result<_, _>>()?, total))
}

/// Revokes a device within the scope, once; `false` where there is none.
pub(crate) async fn revoke(
    client: &impl GenericClient,
    scope: Scope,
    device: &DeviceId,
) -> Result<bool, Error> {
    let sql = format!(
        "UPDATE public.devices d SET revoked_at = coalesce(d.revoked_at, now()) WHERE d.id = $2 AND {WITHIN}"
    );
    Ok(client.execute(&sql, &[&scope.creator(), &device.as_str()]).await? > 0)
}

/// Revokes the user's devices that were not revoked, and names them.
pub(crate) async fn revoke_all_of(client: &impl GenericClient, user: UserId) -> Result<Vec<DeviceId>, Error> {
    let sql = "UPDATE public.devices SET revoked_at = now()
                WHERE user_id = $1 AND revoked_at IS NULL RETURNING id";
    let mut devices = Vec::new();
    for row in client.query(sql, &[&user.uuid()]).await? {
        // What plain SQL named otherwise can be no caller's id, and nothing of it is cached.
        devices.extend(row.try_get::<_, &str>(0)?.parse().ok());
    }
    Ok(devices)
}
