//! The error codes of the contract, for whole requests and for single items of an upload.

use std::fmt;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// Says what went wrong, and with it what the caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ToSchema)]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    ValidationError,
    InvalidToken,
    InvalidRecipient,
    EmptyMessage,
    Conflict,
    CursorExpired,
    PayloadTooLarge,
    RateLimited,
    SyncError,
    DatabaseError,
    RedisError,
    InternalError,
}

impl Code {
    /// The code as it travels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::Unauthorized => "UNAUTHORIZED",
            Code::Forbidden => "FORBIDDEN",
            Code::NotFound => "NOT_FOUND",
            Code::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Code::ValidationError => "VALIDATION_ERROR",
            Code::InvalidToken => "INVALID_TOKEN",
            Code::InvalidRecipient => "INVALID_RECIPIENT",
            Code::EmptyMessage => "EMPTY_MESSAGE",
            Code::Conflict => "CONFLICT",
            Code::CursorExpired => "CURSOR_EXPIRED",
            Code::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Code::RateLimited => "RATE_LIMITED",
            Code::SyncError => "SYNC_ERROR",
            Code::DatabaseError => "DATABASE_ERROR",
            Code::RedisError => "REDIS_ERROR",
            Code::InternalError => "INTERNAL_ERROR",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
