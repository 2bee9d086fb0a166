//! Why an account or a device was not changed.

use posduif_changelog::LogError;

/// Nothing was changed, unless a commit's answer was lost.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The tenant has no such user or device, or the caller may not know of it.
    #[error("there is no such user or device")]
    Unknown,
    /// The database refused or did not answer.
    #[error("PostgreSQL failed")]
    Postgres(#[from] tokio_postgres::Error),
    /// The caches could not be told, and a credential that is ended in the database alone would live on in them.
    #[error("Redis failed, so that nothing was changed")]
    Log(#[from] LogError),
}
