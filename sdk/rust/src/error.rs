//! What went wrong, told apart by what the caller can do about it.

use std::time::Duration;

/// Why a call failed. None of these loses a local write.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer arrived: try again when there is a network.
    #[error("the server was not reached: {0}")]
    Offline(String),
    /// The server answered that it cannot serve now: try again, not before `after` has passed.
    #[error("the server cannot answer now: {cause}")]
    Retry { after: Option<Duration>, cause: String },
    /// The server no longer serves the cursor and wants a snapshot. `sync` does that by itself and reports
    /// this only when it happens again and again.
    #[error("the server no longer knows where this device stands")]
    Resync,
    /// The device's credential is unknown, revoked or lacks the right: enrol again.
    #[error("the server refuses this device: {0}")]
    Unauthorized(String),
    /// The request itself is refused for good, with the contract's error code: by the server or, before it was
    /// stored, by this library.
    #[error("refused: {message} ({code})")]
    Rejected { code: String, message: String },
    /// The server's answer is not what the protocol allows; nothing of it was applied.
    #[error("the server's answer breaks the protocol: {0}")]
    Protocol(String),
    /// Another process or task syncs this database at the moment.
    #[error("another sync of this database is running")]
    Busy,
    /// The database file is missing, not enrolled, of another program or of a newer version, or the
    /// enrolment URL is not one.
    #[error("{0}")]
    Unusable(String),
    /// SQLite failed, or a trigger refused a write that this device may not make.
    #[error("local database: {0}")]
    Store(#[from] rusqlite::Error),
}

/// The result of a device call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An answer that is not the JSON it should be. The parser's own message could quote rows and credentials.
    pub(crate) fn unreadable(what: &str, error: &serde_json::Error) -> Self {
        let (kind, line, column) = (error.classify(), error.line(), error.column());
        Error::Protocol(format!("{what}: {kind:?} error at line {line}, column {column}"))
    }

    /// Whether the same call may succeed later without anyone changing anything.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Error::Offline(_) | Error::Retry { .. } | Error::Resync | Error::Busy)
    }
}
