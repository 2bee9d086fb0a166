//! A user in, nobody who could act as that user out, and back.

use chrono::{DateTime, Utc};
use posduif_model::UserId;
use tokio_postgres::Client;

use crate::{account, caches::Caches, device, error::AccountError, invitation, user};

/// What disabling a user ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disabled {
    pub at: DateTime<Utc>,
    /// Devices that were not revoked before.
    pub devices_revoked: usize,
}

/// Disables a user: its log-ins end, its devices are revoked, enrolment tokens of it and for it are void.
///
/// Rows are locked in the order in which an enrolment locks them (the token, then the user), so that an enrolment is
/// either seen here or sees this.
pub async fn disable(client: &mut Client, caches: &Caches, user: UserId) -> Result<Disabled, AccountError> {
    let transaction = client.transaction().await?;
    invitation::void_all_of(&transaction, user).await?;
    if !user::lock(&transaction, user).await? {
        return Err(AccountError::Unknown);
    }
    let at = account::disable(&transaction, user).await?;
    let devices = device::revoke_all_of(&transaction, user).await?;
    caches.around(Some(user), &devices, transaction.commit()).await?;
    Ok(Disabled { at, devices_revoked: devices.len() })
}

/// Lets a user in again: by a new log-in, and by devices that are enrolled again.
///
/// Tokens that were being made while the user was disabled came too late to be voided then.
pub async fn enable(client: &mut Client, caches: &Caches, user: UserId) -> Result<(), AccountError> {
    let transaction = client.transaction().await?;
    if account::disabled_at(&transaction, user).await?.is_some() {
        invitation::void_all_of(&transaction, user).await?;
    }
    if !user::lock(&transaction, user).await? {
        return Err(AccountError::Unknown);
    }
    account::enable(&transaction, user).await?;
    caches.around(Some(user), &[], transaction.commit()).await
}
