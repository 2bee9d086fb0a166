//! `public.users`.

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;
use posduif_accounts::account::{self, State};
use posduif_model::{DeviceId, UserId};
use serde::Serialize;
use tokio_postgres::{Client, Error, Row};
use utoipa::ToSchema;
use uuid::Uuid;

use super::StoreError;

/// A user as others in the tenant may see it. The operator may leave out any member but `id`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "f8c1ebd0-0c52-487d-a2a8-8b90bb90b1af", "username": "Bob", "user_type": "web", "online_status": true,
    "last_seen": "2026-11-23T10:43:58.417523Z", "enrolled_at": null, "last_message_sent": "Hello Joe",
    "last_message_at": "2026-11-23T10:43:55.221749Z", "created_at": "2026-11-23T10:41:37.065493Z",
    "updated_at": "2026-11-23T10:41:37.065493Z",
}))]
pub struct User {
    #[schema(value_type = Uuid)]
    pub id: UserId,
    #[schema(required = false)]
    pub username: String,
    /// `web` or `mobile`.
    #[schema(required = false)]
    pub user_type: String,
    /// Whether the user has a live connection.
    #[schema(required = false)]
    pub online_status: bool,
    #[schema(required = false)]
    pub last_seen: Option<DateTime<Utc>>,
    /// When its newest device was enrolled.
    #[schema(required = false)]
    pub enrolled_at: Option<DateTime<Utc>>,
    /// The content of the user's newest message, to whomever it went.
    #[schema(required = false)]
    pub last_message_sent: Option<String>,
    #[schema(required = false)]
    pub last_message_at: Option<DateTime<Utc>>,
    #[schema(required = false)]
    pub created_at: DateTime<Utc>,
    #[schema(required = false)]
    pub updated_at: DateTime<Utc>,
    /// For operators of the tenant only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    pub account: Option<Account>,
}

/// Whether a user operates the tenant, and since when it is kept out.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Account {
    is_admin: bool,
    disabled_at: Option<DateTime<Utc>>,
}

/// Which users a list holds.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// A part of the username, in any case.
    pub username_part: Option<String>,
    pub online: Option<bool>,
}

const COLUMNS: &str = "id, username, user_type, online_status, last_seen, enrolled_at, last_message_sent, \
                       last_message_at, created_at, updated_at";

fn user(row: &Row) -> Result<User, Error> {
    Ok(User {
        id: UserId::new(row.try_get("id")?),
        username: row.try_get("username")?,
        user_type: row.try_get("user_type")?,
        online_status: row.try_get("online_status")?,
        last_seen: row.try_get("last_seen")?,
        enrolled_at: row.try_get("enrolled_at")?,
        last_message_sent: row.try_get("last_message_sent")?,
        last_message_at: row.try_get("last_message_at")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        account: None,
    })
}

pub async fn find(client: &impl GenericClient, id: UserId) -> Result<Option<User>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM public.users WHERE id = $1");
    let statement = client.prepare_cached(&sql).await?;
    let found = client.query_opt(&statement, &[&id.uuid()]).await?;
    Ok(found.as_ref().map(user).transpose()?)
}

/// Adds what operators see.
pub async fn add_accounts(client: &Client, users: &mut [User]) -> Result<(), StoreError> {
    let ids: Vec<UserId> = users.iter().map(|user| user.id).collect();
    let states = account::states(client, &ids).await?;
    for user in users {
        let State { is_admin, disabled_at } = states.get(&user.id).copied().unwrap_or_default();
        user.account = Some(Account { is_admin, disabled_at });
    }
    Ok(())
}

/// The mobile user of this name, for whom a new phone may be enrolled.
pub async fn find_mobile(client: &impl GenericClient, username: &str) -> Result<Option<UserId>, StoreError> {
    let sql = "SELECT id FROM public.users WHERE username = $1 AND user_type = 'mobile'";
    let statement = client.prepare_cached(sql).await?;
    let found = client.query_opt(&statement, &[&username]).await?;
    Ok(found.map(|row| row.try_get::<_, Uuid>(0)).transpose()?.map(UserId::new))
}

/// A page of users by name, and how many there are in all.
pub async fn list(
    client: &impl GenericClient,
    filter: &Filter,
    limit: i64,
    offset: i64,
) -> Result<(Vec<User>, i64), StoreError> {
    let matching = "FROM public.users
                     WHERE ($1::text IS NULL OR strpos(lower(username), lower($1)) > 0)
                       AND ($2::boolean IS NULL OR online_status = $2)";
    let count = client.prepare_cached(&format!("SELECT count(*) {matching}")).await?;
    let total = client.query_one(&count, &[&filter.username_part, &filter.online]).await?.try_get(0)?;
    let page = format!("SELECT {COLUMNS} {matching} ORDER BY username, id LIMIT $3 OFFSET $4");
    let page = client.prepare_cached(&page).await?;
    let rows = client.query(&page, &[&filter.username_part, &filter.online, &limit, &offset]).await?;
    Ok((rows.iter().map(user).collect::<Result<_, _>>()?, total))
}

/// Creates the mobile user of a first enrolment; `None` when the name is taken.
pub async fn create_mobile(
    client: &impl GenericClient,
    username: &str,
    device: &DeviceId,
    token_id: Uuid,
) -> Result<Option<UserId>, StoreError> {
    let sql = "INSERT INTO public.users (username, user_type, device_id, enrolled_at, enrollment_token_id)
               VALUES ($1, 'mobile', $2, now(), $3) ON CONFLICT (username) DO NOTHING RETURNING id";
    let statement = client.prepare_cached(sql).await?;
    let created = client.query_opt(&statement, &[&username, &device.as_str(), &token_id]).await?;
    Ok(created.map(|row| row.try_get::<_, Uuid>(0)).transpose()?.map(UserId::new))
}

/// Notes a further device of an existing user.
pub async fn note_enrollment(
    client: &impl GenericClient,
    user: UserId,
    device: &DeviceId,
    token_id: Uuid,
) -> Result<(), StoreError> {
    let sql = "UPDATE public.users SET device_id = $2, enrolled_at = now(), enrollment_token_id = $3
                WHERE id = $1";
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&user.uuid(), &device.as_str(), &token_id]).await?;
    Ok(())
}

/// The first half of the keys of advisory locks that keep the uploads of a user apart; the letters "posd" in ASCII.
const UPLOADS: i32 = 0x706f_7364;

/// Lets one upload of the user at a time go on, until the transaction ends: two of its devices may write the same rows
/// in opposite orders.
pub async fn take_turns(client: &impl GenericClient, user: UserId) -> Result<(), StoreError> {
    let statement = client.prepare_cached("SELECT pg_advisory_xact_lock($1, hashtext($2))").await?;
    client.execute(&statement, &[&UPLOADS, &user.to_string()]).await?;
    Ok(())
}
