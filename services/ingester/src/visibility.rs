//! `pg_current_snapshot()` in, whether a decoded transaction can be seen by new snapshots out.
//!
//! A commit is decoded as soon as its record is flushed, but stays invisible until its backend has left the
//! list of running transactions; under synchronous replication that can take for ever.

use std::{fmt, str::FromStr};

/// A snapshot as `pg_current_snapshot()` prints it: `xmin:xmax:xip,…` (manual 9.27.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Every transaction below has ended.
    pub xmin: u64,
    /// No transaction from here on had ended.
    pub xmax: u64,
    running: Vec<u64>,
}

/// The text is not a snapshot.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a snapshot, expected xmin:xmax:running")]
pub struct InvalidSnapshot;

impl FromStr for Snapshot {
    type Err = InvalidSnapshot;

    fn from_str(text: &str) -> Result<Self, InvalidSnapshot> {
        let number = |digits: &str| digits.parse::<u64>().map_err(|_| InvalidSnapshot);
        let (xmin, rest) = text.split_once(':').ok_or(InvalidSnapshot)?;
        let (xmax, running) = rest.split_once(':').ok_or(InvalidSnapshot)?;
        let running = match running {
            "" => Vec::new(),
            list => list.split(',').map(number).collect::<Result<_, _>>()?,
        };
        Ok(Snapshot { xmin: number(xmin)?, xmax: number(xmax)?, running })
    }
}

impl Snapshot {
    /// Whether the effects of a committed transaction are visible in this snapshot.
    ///
    /// pgoutput names it by the low 32 bits of its id; the full id is the one nearest to the snapshot, because
    /// no two ids that are in use lie 2^31 apart.
    pub fn sees(&self, xid: u32) -> bool {
        let full = self.widen(xid);
        self.sees_full(full)
    }

    /// The same by a transaction's full id.
    pub fn sees_full(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && !self.running.contains(&xid))
    }

    fn widen(&self, xid: u32) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
        let low = self.xmax as u32;
        let distance = i64::from(xid.wrapping_sub(low).cast_signed());
        self.xmax.saturating_add_signed(distance)
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (place, xid) in self.running.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{xid}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().unwrap()
    }

    #[test]
    fn running_and_later_transactions_are_invisible() {
        let snapshot = snapshot("727:730:727,729");
        let seen: Vec<bool> = (726..=731).map(|xid| snapshot.sees(xid)).collect();
        assert_eq!(seen, [true, false, true, false, false, false]);
        assert_eq!(snapshot.to_string(), "727:730:727,729");
        assert!(!"727:727:".parse::<Snapshot>().unwrap().sees(727));
    }

    proptest::proptest! {
        #[test]
        fn ids_widen_to_the_nearest_across_the_wrap(xmax in (1u64 << 31)..(1 << 40), distance in -(1i64 << 31) + 1..(1 << 31) - 1) {
            let full = xmax.saturating_add_signed(distance);
            let snapshot = Snapshot { xmin: xmax, xmax, running: vec![] };
            assert_eq!(snapshot.widen((full & 0xFFFF_FFFF) as u32), full);
        }
    }

    #[test]
    fn text_that_is_no_snapshot_is_refused() {
        for text in ["", "1", "1:2", "1:2:x", "a:2:", "1:2:3,"] {
            assert_eq!(text.parse::<Snapshot>(), Err(InvalidSnapshot), "{text:?}");
        }
    }
}
