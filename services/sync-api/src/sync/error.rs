//! Why a device got no page.

use posduif_changelog::LogError;
use posduif_model::cursor::SealError;

use crate::{declaration::Unusable, store::StoreError};

#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The device must begin again with a snapshot.
    #[error("the cursor is of another epoch or other rules, or its part of the log was trimmed")]
    Expired,
    /// The device must come back a little later; the text says what is awaited.
    #[error("{0}")]
    NotReady(&'static str),
    /// Others are being served; the device comes back after about as many seconds.
    #[error("too many devices take a snapshot at once; ask again in {seconds} s")]
    Busy { seconds: u64 },
    #[error("a cursor could not be sealed")]
    Cursor(#[from] SealError),
    /// The operator must change the table or its declaration.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// PostgreSQL was asked at a server that the log does not follow, or not yet: what it holds proves nothing.
pub const OTHER_SERVER: SyncError =
    SyncError::NotReady("the log follows another PostgreSQL server than the one that was asked");
