//! The place of one change in the order of all changes: the only clock of sync.

use std::{fmt, str::FromStr};

use crate::lsn::Lsn;

/// Where a change stands: the commit's LSN, then the change's place in its transaction.
///
/// `commit` is the final LSN in the body of pgoutput's Begin message; `ordinal` counts the raw row messages of
/// that transaction before routing. The text form `<commit>-<ordinal>`, both decimal, is the id of a Redis
/// stream entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub commit: Lsn,
    pub ordinal: u64,
}

impl Position {
    /// The first position of a transaction.
    pub const fn first_of(commit: Lsn) -> Self {
        Position { commit, ordinal: 0 }
    }

    /// A position after every change of a transaction.
    pub const fn last_of(commit: Lsn) -> Self {
        Position { commit, ordinal: u64::MAX }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.commit.get(), self.ordinal)
    }
}

/// The text is not a position.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a stream position, expected two decimal numbers such as 24000000-3")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (commit, ordinal) = text.split_once('-').ok_or(InvalidPosition)?;
        let number = |digits: &str| digits.parse::<u64>().map_err(|_| InvalidPosition);
        Ok(Position { commit: Lsn::new(number(commit)?), ordinal: number(ordinal)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_order_by_commit_then_ordinal() {
        let position = |commit, ordinal| Position { commit: Lsn::new(commit), ordinal };
        assert!(position(1, 9) < position(2, 0));
        assert!(position(2, 0) < position(2, 1));
        assert!(Position::last_of(Lsn::new(2)) < Position::first_of(Lsn::new(3)));
    }

    #[test]
    fn stream_ids_round_trip_at_the_ends_of_the_range() {
        for text in ["0-0", "18446744073709551615-18446744073709551615", "24000000-3"] {
            assert_eq!(text.parse::<Position>().map(|p| p.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "1", "-1", "1-", "18446744073709551616-0", "1-x"] {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text:?}");
        }
    }
}
