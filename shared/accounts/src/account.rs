//! `posduif_engine.accounts`: which log-ins are good, who operates the tenant, who is kept out.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use posduif_changelog::account_auth::Account;
use posduif_model::UserId;
use tokio_postgres::{Error, GenericClient, Row};

/// The account of each web user among these; a user without a row has a plain one.
///
/// Users that do not exist, or are not web users, are left out.
pub async fn of_web_users(
    client: &impl GenericClient,
    users: &[UserId],
) -> Result<Vec<(UserId, Account)>, Error> {
    let ids: Vec<_> = users.iter().map(|user| user.uuid()).collect();
    let sql = "SELECT u.id, coalesce(a.log_ins, 0), coalesce(a.is_admin, false), a.disabled_at IS NOT NULL
                 FROM public.users u LEFT JOIN posduif_engine.accounts a ON a.user_id = u.id
                WHERE u.id = ANY ($1) AND u.user_type = 'web'";
    let account = |row: &Row| {
        let account =
            Account { log_ins: row.try_get(1)?, is_admin: row.try_get(2)?, is_disabled: row.try_get(3)? };
        Ok((UserId::new(row.try_get(0)?), account))
    };
    client.query(sql, &[&ids]).await?.iter().map(account).collect()
}

/// What operators see of an account.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    pub is_admin: bool,
    pub disabled_at: Option<DateTime<Utc>>,
}

/// The accounts of these users; one without a row has a plain one.
pub async fn states(client: &impl GenericClient, users: &[UserId]) -> Result<HashMap<UserId, State>, Error> {
    let ids: Vec<_> = users.iter().map(|user| user.uuid()).collect();
    let sql = "SELECT user_id, is_admin, disabled_at FROM posduif_engine.accounts WHERE user_id = ANY ($1)";
    let state = |row: &Row| {
        let state = State { is_admin: row.try_get(1)?, disabled_at: row.try_get(2)? };
        Ok((UserId::new(row.try_get(0)?), state))
    };
    client.query(sql, &[&ids]).await?.iter().map(state).collect()
}

/// Since when the user is disabled.
pub async fn disabled_at(client: &impl GenericClient, user: UserId) -> Result<Option<DateTime<Utc>>, Error> {
    let sql = "SELECT disabled_at FROM posduif_engine.accounts WHERE user_id = $1";
    let found = client.query_opt(sql, &[&user.uuid()]).await?;
    Ok(found.map(|row| row.try_get(0)).transpose()?.flatten())
}

/// Makes a user an operator of the tenant, or no longer one.
pub async fn set_admin(client: &impl GenericClient, user: UserId, is_admin: bool) -> Result<(), Error> {
    let sql = "INSERT INTO posduif_engine.accounts (user_id, is_admin) VALUES ($1, $2)
               ON CONFLICT (user_id) DO UPDATE SET is_admin = excluded.is_admin";
    client.execute(sql, &[&user.uuid(), &is_admin]).await?;
    Ok(())
}

/// Disables a user and ends its log-ins; whoever is disabled already stays so since then.
pub(crate) async fn disable(client: &impl GenericClient, user: UserId) -> Result<DateTime<Utc>, Error> {
    let sql = "INSERT INTO posduif_engine.accounts AS a (user_id, disabled_at, log_ins) VALUES ($1, now(), 1)
               ON CONFLICT (user_id) DO UPDATE
                  SET disabled_at = coalesce(a.disabled_at, now()), log_ins = a.log_ins + 1
               RETURNING disabled_at";
    client.query_one(sql, &[&user.uuid()]).await?.try_get(0)
}

pub(crate) async fn enable(client: &impl GenericClient, user: UserId) -> Result<(), Error> {
    let sql = "UPDATE posduif_engine.accounts SET disabled_at = NULL WHERE user_id = $1";
    client.execute(sql, &[&user.uuid()]).await?;
    Ok(())
}

/// Ends all log-ins that were given out so far.
pub(crate) async fn end_log_ins(client: &impl GenericClient, user: UserId) -> Result<(), Error> {
    let sql = "INSERT INTO posduif_engine.accounts AS a (user_id, log_ins) VALUES ($1, 1)
               ON CONFLICT (user_id) DO UPDATE SET log_ins = a.log_ins + 1";
    client.execute(sql, &[&user.uuid()]).await?;
    Ok(())
}
