//! A device and the web user who let it in, in; a credential that is worth nothing out, at once and everywhere.

use posduif_changelog::LogError;
use posduif_model::{DeviceId, UserId};

use crate::{
    store::{StoreError, devices},
    tenant::Tenant,
};

#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    #[error("the web user let in no such device")]
    Unknown,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Revokes a device; again changes nothing.
///
/// The cache forgets the credential before the commit, so that a failure of Redis refuses the revocation instead of
/// delaying it, and after it, because somebody may have read and stored it in between.
pub async fn revoke(tenant: &Tenant, by: UserId, device: &DeviceId) -> Result<(), RevocationError> {
    let mut may_be_stored = false;
    let outcome = tenant.database.run(async |client| {
        let transaction = client.transaction().await.map_err(StoreError::from)?;
        if !devices::revoke(&transaction, by, device).await? {
            return Err(RevocationError::Unknown);
        }
        tenant.device_auth.forget(device).await?;
        may_be_stored = true;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(())
    });
    let outcome = outcome.await;
    // A commit whose answer was lost may have happened.
    if may_be_stored {
        tenant.device_auth.forget(device).await?;
    }
    outcome
}
