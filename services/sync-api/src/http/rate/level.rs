//! How full a caller's bucket is, in the headers that tell it.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The headers, for those who pass them on.
pub const HEADERS: [HeaderName; 3] = [LIMIT, REMAINING, RESET];

/// A bucket after a request was taken from it, or found it empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// What it holds when full.
    pub limit: u32,
    /// What can be asked at once now.
    pub remaining: u32,
    /// Seconds until it is full again, rounded up.
    pub reset: u64,
}

/// The bucket is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    pub level: Level,
    /// Seconds until it holds something, rounded up, at least 1.
    pub retry_after: u64,
}

impl Level {
    /// The one that lets less through.
    pub fn tighter(self, other: Level) -> Level {
        if other.remaining < self.remaining { other } else { self }
    }

    pub fn write(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(self.reset));
    }
}
