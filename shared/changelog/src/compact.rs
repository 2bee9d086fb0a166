//! The shared bucket in, the same bucket without versions of rows that newer ones displace out.
//!
//! Every message changes its sender's row, and every device reads the shared bucket: one that was away for a day must
//! not read a day of them. Deleting single entries of a stream frees memory late, so what remains is copied into a new
//! stream that takes the old one's place.

use std::collections::HashMap;

use posduif_model::{Bucket, Epoch, Lsn, Op, Position, TableName};

use crate::{
    entry::{self, Entry},
    error::LogError,
    writer::{LogWriter, StoredEntry},
};

/// Entries read or copied at once.
const STEP: usize = 200;
/// Rows remembered at once; what lies before the newest versions of so many rows stays as it is.
const MOST_ROWS: usize = 500_000;
/// Attempts to catch up with what is appended while the copy is made.
const MOST_CATCH_UPS: usize = 100;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    pub removed: usize,
    /// Entries that would be left if nothing had come since.
    pub kept: usize,
}

/// What was found to be displaced.
struct Found {
    /// Oldest last.
    displaced: Vec<Position>,
    /// The newest commit that displaced any.
    mark: Lsn,
    /// Entries that stay, of those that were looked at.
    kept: usize,
}

/// Decides, from the newest entry to the oldest, which ones nobody needs any more.
#[derive(Debug, Default)]
struct Displacement {
    /// The commit of each row's newest operation.
    rows: HashMap<(TableName, String), Lsn>,
    /// The commit of each table's newest truncate.
    truncated: HashMap<TableName, Lsn>,
    /// The newest commit that displaced anything.
    mark: Lsn,
}

impl Displacement {
    fn is_full(&self) -> bool {
        self.rows.len() >= MOST_ROWS
    }

    /// Whether a later entry displaces every operation of this one.
    ///
    /// For whoever reads on from before it up to the mark or beyond, the last word on each row is the same without it.
    fn displaces(&mut self, entry: &Entry) -> bool {
        let mut by = Some(Lsn::ZERO);
        for change in entry.changes.iter().rev() {
            let truncated = self.truncated.get(&change.table).copied();
            let commit = entry.position.commit;
            let newer = match change.op {
                Op::Truncate => {
                    self.truncated.entry(change.table.clone()).or_insert(commit);
                    truncated
                }
                Op::Put | Op::Delete => {
                    let row = (change.table.clone(), change.key.clone());
                    let newer = truncated.or_else(|| self.rows.get(&row).copied());
                    if newer.is_none() {
                        self.rows.insert(row, commit);
                    }
                    newer
                }
            };
            by = by.zip(newer).map(|(by, newer)| by.max(newer));
        }
        if let Some(by) = by {
            self.mark = self.mark.max(by);
        }
        by.is_some()
    }
}

impl LogWriter {
    /// Entries of the shared bucket.
    pub async fn shared_length(&mut self, epoch: &Epoch) -> Result<usize, LogError> {
        let shared = self.keys.bucket(epoch, &Bucket::Shared);
        Ok(redis::cmd("XLEN").arg(shared).query_async(&mut self.connection).await?)
    }

    /// Removes entries up to `upto`, a commit at or below the watermark, that newer ones up to there displace.
    ///
    /// # Errors
    /// `OutOfMemory` when the copy has no room; the bucket is as it was.
    pub async fn compact_shared(&mut self, epoch: &Epoch, upto: Lsn) -> Result<Compacted, LogError> {
        let Found { displaced, mark, kept } = self.displaced(epoch, upto).await?;
        if displaced.is_empty() {
            return Ok(Compacted { removed: 0, kept });
        }
        let copied = self.copy_shared(epoch, &displaced, mark).await;
        if !matches!(copied, Ok(true)) {
            // A later attempt begins anew.
            let copy = self.keys.compacting(epoch);
            let () = redis::cmd("UNLINK").arg(copy).query_async(&mut self.connection).await?;
        }
        match copied? {
            true => Ok(Compacted { removed: displaced.len(), kept }),
            false => Ok(Compacted::default()),
        }
    }

    async fn displaced(&mut self, epoch: &Epoch, upto: Lsn) -> Result<Found, LogError> {
        let shared = self.keys.bucket(epoch, &Bucket::Shared);
        let (mut displacement, mut displaced) = (Displacement::default(), Vec::new());
        let mut before = Position::last_of(upto).to_string();
        let mut kept = 0;
        loop {
            let found: Vec<StoredEntry> = redis::cmd("XREVRANGE")
                .arg((&shared, &before, "-", "COUNT", STEP))
                .query_async(&mut self.connection)
                .await?;
            let Some((oldest, _)) = found.last() else { break };
            before = format!("({oldest}");
            for (id, fields) in &found {
                let entry = entry::decode(id, fields)?;
                match displacement.displaces(&entry) {
                    true => displaced.push(entry.position),
                    false => kept += 1,
                }
            }
            if displacement.is_full() {
                kept = self.shared_length(epoch).await?.saturating_sub(displaced.len());
                break;
            }
        }
        Ok(Found { displaced, mark: displacement.mark, kept })
    }

    /// Copies what is not displaced and swaps; false when the bucket grows faster than it is copied.
    async fn copy_shared(
        &mut self,
        epoch: &Epoch,
        displaced: &[Position],
        mark: Lsn,
    ) -> Result<bool, LogError> {
        let (shared, copy) = (self.keys.bucket(epoch, &Bucket::Shared), self.keys.compacting(epoch));
        let () = redis::cmd("UNLINK").arg(&copy).query_async(&mut self.connection).await?;
        let mut last = "0-0".to_owned();
        let mut displaced = displaced.iter().rev().copied().peekable();
        let missing = displaced.len();
        for _ in 0..MOST_CATCH_UPS {
            while let Some(end) = self.copy_step(epoch, &last, displaced.clone().take(STEP)).await? {
                let through: Position = end.parse().map_err(|_| LogError::Corrupt(format!("entry {end}")))?;
                while displaced.next_if(|position| *position <= through).is_some() {}
                last = end;
            }
            let mut call = self.scripts.swap.key(self.keys.token());
            call.key(self.keys.state()).key(&shared).key(&copy).arg(self.token).arg(epoch.to_string());
            call.arg(mark.get()).arg(&last).arg(missing);
            if call.invoke_async::<i64>(&mut self.connection).await? == 1 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Copies the next entries after `last` and returns the id of the last one looked at.
    async fn copy_step(
        &mut self,
        epoch: &Epoch,
        last: &str,
        left_out: impl Iterator<Item = Position>,
    ) -> Result<Option<String>, LogError> {
        let mut call = self.scripts.copy.key(self.keys.token());
        call.key(self.keys.state()).key(self.keys.bucket(epoch, &Bucket::Shared));
        call.key(self.keys.compacting(epoch));
        call.arg(self.token).arg(epoch.to_string()).arg(last).arg(STEP);
        for position in left_out {
            call.arg(position.to_string());
        }
        Ok(call.invoke_async(&mut self.connection).await?)
    }
}

#[cfg(test)]
mod tests {
    use posduif_model::Change;
    use proptest::prelude::*;

    use super::*;
    use crate::fold::fold;

    fn entry(commit: u64, changes: &[(Op, u8, u8)]) -> Entry {
        let change = |(op, table, key): &(Op, u8, u8)| Change {
            op: *op,
            table: format!("t{table}").parse().unwrap(),
            key: if *op == Op::Truncate { String::new() } else { format!("{{\"id\":{key}}}") },
            row: if *op == Op::Put { format!("{commit}") } else { String::new() },
        };
        Entry {
            position: Position::first_of(Lsn::new(commit)),
            origin: None,
            changes: changes.iter().map(change).collect(),
        }
    }

    fn compacted(entries: &[Entry]) -> (Vec<Entry>, Lsn) {
        let mut displacement = Displacement::default();
        let mut left: Vec<Entry> =
            entries.iter().rev().filter(|entry| !displacement.displaces(entry)).cloned().collect();
        left.reverse();
        (left, displacement.mark)
    }

    fn ids(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.position.commit.get()).collect()
    }

    #[test]
    fn older_versions_of_a_row_go_and_the_newest_stays() {
        let entries = [
            entry(1, &[(Op::Put, 0, 1)]),
            entry(2, &[(Op::Put, 0, 2)]),
            entry(3, &[(Op::Put, 0, 1)]),
            entry(4, &[(Op::Delete, 0, 2)]),
            entry(5, &[(Op::Put, 1, 1)]),
        ];
        let (left, mark) = compacted(&entries);
        assert_eq!((ids(&left), mark), (vec![3, 4, 5], Lsn::new(4)));
    }

    #[test]
    fn a_truncate_displaces_what_came_before_it_and_nothing_after() {
        let entries = [
            entry(1, &[(Op::Put, 0, 1)]),
            entry(2, &[(Op::Truncate, 0, 0)]),
            entry(3, &[(Op::Put, 0, 1)]),
            entry(4, &[(Op::Truncate, 1, 0), (Op::Truncate, 0, 0)]),
            entry(5, &[(Op::Put, 0, 1)]),
        ];
        let (left, mark) = compacted(&entries);
        assert_eq!((ids(&left), mark), (vec![4, 5], Lsn::new(4)));
    }

    #[test]
    fn an_entry_stays_while_one_of_its_operations_is_the_last_word() {
        let entries = [entry(1, &[(Op::Delete, 0, 1), (Op::Put, 0, 2)]), entry(2, &[(Op::Put, 0, 1)])];
        assert_eq!(ids(&compacted(&entries).0), [1, 2]);
    }

    prop_compose! {
        fn operation()(kind in 0..20u8, table in 0..2u8, key in 0..4u8) -> (Op, u8, u8) {
            let op = match kind { 0 => Op::Truncate, 1..=6 => Op::Delete, _ => Op::Put };
            (op, table, key)
        }
    }

    proptest! {
        #[test]
        fn whoever_reads_on_from_anywhere_to_the_mark_or_beyond_ends_with_the_same_rows(
            transactions in prop::collection::vec(prop::collection::vec(operation(), 1..3), 1..30),
            from in 0..30usize,
            beyond in 0..30usize,
        ) {
            let entries: Vec<Entry> =
                (1..).zip(&transactions).map(|(commit, changes)| entry(commit, changes)).collect();
            let (left, mark) = compacted(&entries);
            let until = mark.get().max(u64::try_from(beyond).unwrap());
            let read = |all: &[Entry]| {
                let from = u64::try_from(from).unwrap();
                let range = all.iter().filter(|e| (from + 1..=until).contains(&e.position.commit.get()));
                let last = fold(range.cloned().collect(), |_| false);
                last.into_iter().map(|f| (f.change.op, f.change.table, f.change.key, f.change.row)).collect::<Vec<_>>()
            };
            let (mut whole, mut short) = (read(&entries), read(&left));
            whole.sort();
            short.sort();
            prop_assert_eq!(whole, short);
        }
    }
}
