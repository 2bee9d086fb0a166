//! What PostgreSQL says in, what the caller does about it out.

use deadpool_postgres::PoolError;
use posduif_model::row::RowError;

/// A failed statement; no variant holds a row's values.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The server is down, shutting down, read-only or out of resources; the caller comes back later.
    #[error("PostgreSQL is not available: {0}")]
    Unavailable(String),
    /// The transaction lost against a concurrent one; it may be repeated as a whole.
    #[error("PostgreSQL gave up a transaction in favour of another ({0})")]
    Contended(String),
    /// PostgreSQL refuses the data; the same data will be refused again.
    #[error("PostgreSQL refused the data ({0})")]
    Rejected(String),
    /// A table or column does not exist, or no longer.
    #[error("a statement failed: {0}")]
    Missing(String),
    /// A statement does not fit the database: a missing migration, a missing grant, a bug.
    #[error("a statement failed: {0}")]
    Unexpected(String),
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(refused) = error.as_db_error() else {
            return StoreError::Unavailable(error.to_string());
        };
        // Details and hints of PostgreSQL quote values; the message does too where data is refused.
        let code = refused.code().code();
        let told = || format!("{} ({code})", refused.message());
        match (code, code.get(..2).unwrap_or_default()) {
            ("40001" | "40P01" | "55P03", _) => StoreError::Contended(code.to_owned()),
            ("42P01" | "42703", _) => StoreError::Missing(told()),
            // Read-only, or a transaction that was idle for too long.
            ("25006" | "25P03", _) | (_, "08" | "53" | "57" | "58") => StoreError::Unavailable(told()),
            // 428C9: a value for a column that always makes its own. 54: too deep, or too large for an index.
            ("428C9", _) | (_, "22" | "23" | "44" | "54" | "P0") => StoreError::Rejected(code.to_owned()),
            _ => StoreError::Unexpected(told()),
        }
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => match StoreError::from(error) {
                StoreError::Contended(text)
                | StoreError::Rejected(text)
                | StoreError::Missing(text)
                | StoreError::Unexpected(text) => StoreError::Unavailable(text),
                unavailable => unavailable,
            },
            other => StoreError::Unavailable(other.to_string()),
        }
    }
}

impl From<RowError> for StoreError {
    fn from(error: RowError) -> Self {
        StoreError::Unexpected(error.to_string())
    }
}
