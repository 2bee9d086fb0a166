//! Entries of several buckets in, whole transactions in order out.

use posduif_model::Lsn;

use crate::entry::Entry;

/// A piece of the log for one reader: whole transactions only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of their positions.
    pub entries: Vec<Entry>,
    /// The reader holds everything of its buckets up to and including this commit.
    pub through: Lsn,
}

/// What was read of one bucket.
pub(crate) struct BucketRead {
    pub entries: Vec<Entry>,
    /// Whether entries were left out after the last one.
    pub cut: bool,
}

/// How far a set of bucket reads goes.
pub(crate) enum Merged {
    Page(Page),
    /// Not even one transaction is complete: the one with this commit must be read whole.
    Incomplete(Lsn),
}

/// A page ends with the transaction that brings it to so many bytes: devices hold a page in memory.
pub(crate) const PAGE_BYTES: usize = 4 << 20;

/// Merges bucket reads into a page of about `limit` entries that ends at a commit boundary.
///
/// A bucket that was cut may lack the rest of its last transaction, so nothing from that commit on is complete.
pub(crate) fn merge(reads: Vec<BucketRead>, upto: Lsn, limit: usize) -> Merged {
    let first_incomplete = reads
        .iter()
        .filter(|read| read.cut)
        .filter_map(|read| read.entries.last())
        .map(|e| e.position.commit)
        .min();
    let mut entries: Vec<Entry> = reads.into_iter().flat_map(|read| read.entries).collect();
    entries.sort_by_key(|entry| entry.position);
    if let Some(bound) = first_incomplete {
        let complete = entries.partition_point(|entry| entry.position.commit < bound);
        if complete == 0 {
            return Merged::Incomplete(bound);
        }
        entries.truncate(complete);
    }
    let mut through = match first_incomplete {
        Some(_) => entries.last().map_or(upto, |entry| entry.position.commit),
        None => upto,
    };
    let mut bytes = 0_usize;
    let fills = |entry: &Entry| {
        bytes += entry.bytes();
        bytes >= PAGE_BYTES
    };
    let heavy = entries.iter().position(fills).unwrap_or(usize::MAX);
    let boundary = entries.get(limit.saturating_sub(1).min(heavy)).map(|entry| entry.position.commit);
    if let Some(last) = boundary {
        let end = entries.partition_point(|entry| entry.position.commit <= last);
        if end < entries.len() {
            entries.truncate(end);
            through = last;
        }
    }
    Merged::Page(Page { entries, through })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(commits: &[(u64, u64)], cut: bool) -> BucketRead {
        let entry = |(commit, ordinal): &(u64, u64)| Entry {
            position: format!("{commit}-{ordinal}").parse().unwrap(),
            origin: None,
            changes: vec![],
        };
        BucketRead { entries: commits.iter().map(entry).collect(), cut }
    }

    fn page(reads: Vec<BucketRead>, limit: usize) -> (Vec<String>, u64) {
        match merge(reads, Lsn::new(100), limit) {
            Merged::Page(page) => {
                (page.entries.iter().map(|e| e.position.to_string()).collect(), page.through.get())
            }
            Merged::Incomplete(lsn) => (vec!["incomplete".into()], lsn.get()),
        }
    }

    #[test]
    fn buckets_are_merged_by_position_and_reach_the_watermark() {
        let got = page(vec![read(&[(1, 0), (3, 0)], false), read(&[(1, 1), (2, 0)], false)], 10);
        assert_eq!(got, (["1-0", "1-1", "2-0", "3-0"].map(String::from).to_vec(), 100));
    }

    #[test]
    fn a_page_never_splits_a_transaction() {
        let got = page(vec![read(&[(1, 0), (1, 1), (1, 2), (2, 0)], false)], 2);
        assert_eq!(got, (["1-0", "1-1", "1-2"].map(String::from).to_vec(), 1));
    }

    #[test]
    fn a_page_ends_after_the_transaction_that_makes_it_large() {
        let mut large = read(&[(1, 0), (2, 0), (2, 1), (3, 0)], false);
        for entry in &mut large.entries {
            entry.changes = vec![posduif_model::Change {
                op: posduif_model::Op::Put,
                table: "t".parse().unwrap(),
                key: "k".into(),
                row: "r".repeat(PAGE_BYTES / 2),
            }];
        }
        assert_eq!(page(vec![large], 10), (["1-0", "2-0", "2-1"].map(String::from).to_vec(), 2));
    }

    #[test]
    fn the_last_transaction_of_a_cut_bucket_is_left_for_the_next_page() {
        let got = page(vec![read(&[(1, 0), (2, 0)], true), read(&[(1, 1), (2, 1), (9, 0)], false)], 10);
        assert_eq!(got, (["1-0", "1-1"].map(String::from).to_vec(), 1));
    }

    #[test]
    fn a_transaction_larger_than_the_read_is_asked_for_whole() {
        let got = page(vec![read(&[(5, 0), (5, 1)], true), read(&[(7, 0)], false)], 2);
        assert_eq!(got, (vec!["incomplete".into()], 5));
    }

    #[test]
    fn nothing_new_moves_the_reader_to_the_watermark() {
        assert_eq!(page(vec![read(&[], false)], 10), (vec![], 100));
    }
}
