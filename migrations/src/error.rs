//! Why a tenant database could not be migrated.

/// A migration that did not finish.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error(
        "PostgreSQL 18 or newer is needed, this server is {0}; upgrade it or point the tenant's url elsewhere"
    )]
    ServerTooOld(String),
    #[error("the database's encoding is {0}; create the tenant's database with ENCODING 'UTF8'")]
    Encoding(String),
    #[error("a migration failed: {0}")]
    Schema(#[from] refinery::Error),
    #[error("PostgreSQL refused: {}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    #[error(
        "publication {0} is FOR ALL TABLES, secrets and all; drop it, or name another one in sync.wal.publication"
    )]
    AllTables(String),
    #[error(
        "role {0} does not exist; run deploy/postgres/setup.sql, or name another one in the tenant's urls"
    )]
    NoRole(String),
    #[error("{0:?} is not a usable publication name")]
    PublicationName(String),
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(refused) => format!("{} ({})", refused.message(), refused.code().code()),
        None => error.to_string(),
    }
}
