//! A change of accounts or devices in, done on the tenant's database and in its caches out.

use posduif_accounts::{AccountError, Caches};
use posduif_changelog::LogError;
use tokio_postgres::Client;

use crate::{
    store::{StoreError, repeat_while_contended},
    tenant::Tenant,
};

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("there is no such user or device")]
    Unknown,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Runs the change, again while it loses against concurrent ones.
pub async fn change<T>(
    tenant: &Tenant,
    step: impl AsyncFn(&mut Client, &Caches) -> Result<T, AccountError>,
) -> Result<T, ChangeError> {
    // What is not the database's own failure does not lead to another attempt.
    let done = repeat_while_contended(async || {
        let attempt = tenant.database.run(async |client| match step(client, &tenant.caches).await {
            Ok(done) => Ok(Ok(done)),
            Err(AccountError::Postgres(error)) => Err(StoreError::from(error)),
            Err(AccountError::Unknown) => Ok(Err(ChangeError::Unknown)),
            Err(AccountError::Log(error)) => Ok(Err(ChangeError::Log(error))),
        });
        attempt.await
    });
    done.await?
}
