//! A connection in, whether it leads to a server whose WAL can be followed out.

use tokio_postgres::Client;

/// Why this server cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum PrimaryError {
    #[error("PostgreSQL refused")]
    Postgres(#[from] tokio_postgres::Error),
    #[error(
        "the server at the tenant's url is a standby, in recovery: nothing can be written to it, so it is not followed; \
         promote it, or lead the url to the primary"
    )]
    Standby,
}

/// That the server is a primary. Slots and their WAL are on standbys too, so all else would look well for long.
pub async fn check(client: &Client) -> Result<(), PrimaryError> {
    match client.query_one("SELECT pg_is_in_recovery()", &[]).await?.get(0) {
        true => Err(PrimaryError::Standby),
        false => Ok(()),
    }
}
