//! Who may see a change: one user, or everyone in the tenant.

use std::{fmt, str::FromStr};

use crate::id::UserId;

/// A set of readers; each bucket of an epoch is one Redis stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Everyone in the tenant; every reader merges it.
    Shared,
    /// The devices of one user.
    User(UserId),
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bucket::Shared => f.write_str("shared"),
            Bucket::User(user) => write!(f, "user:{user}"),
        }
    }
}

/// The text names no bucket.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a bucket, expected shared or user:<uuid>")]
pub struct InvalidBucket;

impl FromStr for Bucket {
    type Err = InvalidBucket;

    fn from_str(text: &str) -> Result<Self, InvalidBucket> {
        match text.split_once(':') {
            None if text == "shared" => Ok(Bucket::Shared),
            Some(("user", id)) => id.parse().map(Bucket::User).map_err(|_| InvalidBucket),
            _ => Err(InvalidBucket),
        }
    }
}
