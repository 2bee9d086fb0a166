//! A change of who may log in, in; log-ins that know of it out, at once and everywhere.

use posduif_model::UserId;
use tokio_postgres::Client;

use crate::{account, caches::Caches, error::AccountError, invitation, user};

/// Stores the hash of a new password and ends the log-ins that an earlier one was given, with the enrolment tokens that
/// they made; a first one ends none, and needs no Redis.
pub async fn set_password(
    client: &mut Client,
    caches: &Caches,
    user: UserId,
    hash: &str,
) -> Result<(), AccountError> {
    let transaction = client.transaction().await?;
    // Whoever knew the password may have given out tokens that outlive it.
    invitation::void_all_of(&transaction, user).await?;
    if !user::lock(&transaction, user).await? {
        return Err(AccountError::Unknown);
    }
    let is_first = user::password_hash(&transaction, user).await?.is_none();
    user::set_password_hash(&transaction, user, hash).await?;
    if is_first {
        return Ok(transaction.commit().await?);
    }
    account::end_log_ins(&transaction, user).await?;
    caches.around(Some(user), &[], transaction.commit()).await
}

/// Makes a user an operator of the tenant, or no longer one.
pub async fn set_admin(
    client: &mut Client,
    caches: &Caches,
    user: UserId,
    is_admin: bool,
) -> Result<(), AccountError> {
    let transaction = client.transaction().await?;
    if !user::lock(&transaction, user).await? {
        return Err(AccountError::Unknown);
    }
    account::set_admin(&transaction, user, is_admin).await?;
    caches.around(Some(user), &[], transaction.commit()).await
}
