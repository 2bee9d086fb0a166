//! A device in, a credential that is worth nothing out, at once and everywhere.

use posduif_model::DeviceId;
use tokio_postgres::Client;

use crate::{
    caches::Caches,
    device::{self, Scope},
    error::AccountError,
};

/// Revokes a device within the scope; again changes nothing.
pub async fn revoke(
    client: &mut Client,
    caches: &Caches,
    scope: Scope,
    device: &DeviceId,
) -> Result<(), AccountError> {
    let transaction = client.transaction().await?;
    if !device::revoke(&transaction, scope, device).await? {
        return Err(AccountError::Unknown);
    }
    caches.around(None, std::slice::from_ref(device), transaction.commit()).await
}
