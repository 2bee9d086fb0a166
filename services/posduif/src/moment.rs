//! A time of the database in, how a terminal shows it out.

use chrono::{DateTime, SecondsFormat, Utc};

/// To the second, or `-` where there is none.
pub fn told(at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.to_rfc3339_opts(SecondsFormat::Secs, true))
}
