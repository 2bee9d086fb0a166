//! Where a tenant's changes come from.

use std::{fmt, str::FromStr};

/// Where an ingester has a tenant's changes from. Readers of the log cannot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The write-ahead log, by a replication slot.
    #[default]
    Wal,
    /// The tables, by what triggers note.
    Polling,
}

impl Source {
    /// The word for it in answers and in the log's state.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Wal => "wal",
            Source::Polling => "polling",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is none of the sources'.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("neither wal nor polling")]
pub struct InvalidSource;

impl FromStr for Source {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        match text {
            "wal" => Ok(Source::Wal),
            "polling" => Ok(Source::Polling),
            _ => Err(InvalidSource),
        }
    }
}
