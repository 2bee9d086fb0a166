//! Why a tenant cannot be polled any further.

use std::time::Duration;

use posduif_changelog::LogError;
use posduif_model::TableName;

use crate::{lookout::LookoutError, route::RouteError, visibility::InvalidSnapshot};

/// The longest a question to PostgreSQL may take that should be answered at once.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A poll that cannot go on; a new session begins from what the log has.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    #[error("PostgreSQL refused")]
    Postgres(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Lookout(#[from] LookoutError),
    #[error(transparent)]
    Snapshot(#[from] InvalidSnapshot),
    #[error("a row of {table} cannot be synced: {source}")]
    Row { table: TableName, source: RouteError },
    #[error(
        "rows of {0} changed and nobody knows which: one of its columns was renamed; run posduif migrate"
    )]
    Unknown(String),
    #[error("the triggers that note what changes were made anew or switched off; looking at them again")]
    Unnoted,
    #[error("PostgreSQL answered {0} otherwise than asked")]
    Unexpected(&'static str),
    #[error("PostgreSQL did not say within {} s what changed", PATIENCE.as_secs())]
    Silent,
}
