//! `public.users`, by name, and their passwords in `posduif_engine.user_credentials`.

use posduif_model::UserId;
use tokio_postgres::{Error, GenericClient};

/// Locks the user's row until the transaction ends; `false` where there is none.
pub(crate) async fn lock(client: &impl GenericClient, user: UserId) -> Result<bool, Error> {
    let sql = "SELECT FROM public.users WHERE id = $1 FOR NO KEY UPDATE";
    Ok(client.query_opt(sql, &[&user.uuid()]).await?.is_some())
}

/// The user of this name and type (`web` or `mobile`).
pub async fn find(
    client: &impl GenericClient,
    username: &str,
    user_type: &str,
) -> Result<Option<UserId>, Error> {
    let sql = "SELECT id FROM public.users WHERE username = $1 AND user_type = $2";
    let found = client.query_opt(sql, &[&username, &user_type]).await?;
    Ok(found.map(|row| row.try_get(0)).transpose()?.map(UserId::new))
}

/// The stored hash of the user's password.
pub async fn password_hash(client: &impl GenericClient, user: UserId) -> Result<Option<String>, Error> {
    let sql = "SELECT password_hash FROM posduif_engine.user_credentials WHERE user_id = $1";
    client.query_opt(sql, &[&user.uuid()]).await?.map(|row| row.try_get(0)).transpose()
}

/// Stores the hash of a password, in place of an earlier one.
pub(crate) async fn set_password_hash(
    client: &impl GenericClient,
    user: UserId,
    hash: &str,
) -> Result<(), Error> {
    let sql = "INSERT INTO posduif_engine.user_credentials (user_id, password_hash) VALUES ($1, $2)
               ON CONFLICT (user_id) DO UPDATE SET password_hash = excluded.password_hash, updated_at = now()";
    client.execute(sql, &[&user.uuid(), &hash]).await?;
    Ok(())
}
