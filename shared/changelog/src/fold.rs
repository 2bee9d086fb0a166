//! The entries of a page in, one final operation per row out.

use std::collections::HashMap;

use posduif_model::{Change, Op, Position, TableName};

use crate::entry::Entry;

/// The last word on one row, or a truncate, with where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalChange {
    pub position: Position,
    pub change: Change,
    /// Whether the reader's own upload made it.
    pub own: bool,
}

/// Keeps what matters of a page: truncates first, then the last operation on each row, by position.
///
/// A truncate wipes what came before it in the page; it stays itself because the reader may hold older rows.
/// When a row leaves one of the reader's buckets and enters another at the same position, the put wins.
pub fn fold(entries: Vec<Entry>, is_own: impl Fn(&Entry) -> bool) -> Vec<FinalChange> {
    let mut truncates: Vec<FinalChange> = Vec::new();
    let mut rows: HashMap<(TableName, String), FinalChange> = HashMap::new();
    for entry in entries {
        let own = is_own(&entry);
        for change in entry.changes {
            let candidate = FinalChange { position: entry.position, change, own };
            match candidate.change.op {
                Op::Truncate => {
                    rows.retain(|(table, _), _| *table != candidate.change.table);
                    truncates.retain(|earlier| earlier.change.table != candidate.change.table);
                    truncates.push(candidate);
                }
                Op::Delete | Op::Put => {
                    let id = (candidate.change.table.clone(), candidate.change.key.clone());
                    let beaten = rows.get(&id).is_some_and(|held| {
                        held.position == candidate.position && held.change.op > candidate.change.op
                    });
                    if !beaten {
                        rows.insert(id, candidate);
                    }
                }
            }
        }
    }
    let mut rows: Vec<FinalChange> = rows.into_values().collect();
    rows.sort_by(|a, b| {
        (a.position, a.change.op, &a.change.key).cmp(&(b.position, b.change.op, &b.change.key))
    });
    truncates.into_iter().chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(position: &str, ops: &[(Op, &str)]) -> Entry {
        let change = |(op, key): &(Op, &str)| Change {
            op: *op,
            table: "t".parse().unwrap(),
            key: (*key).into(),
            row: String::new(),
        };
        Entry { position: position.parse().unwrap(), origin: None, changes: ops.iter().map(change).collect() }
    }

    fn folded(entries: Vec<Entry>) -> Vec<(Op, String)> {
        fold(entries, |_| false).into_iter().map(|f| (f.change.op, f.change.key)).collect()
    }

    #[test]
    fn each_row_appears_once_with_its_last_operation() {
        let got = folded(vec![
            entry("1-0", &[(Op::Put, "a")]),
            entry("1-1", &[(Op::Put, "b")]),
            entry("2-0", &[(Op::Delete, "a")]),
        ]);
        assert_eq!(got, [(Op::Put, "b".into()), (Op::Delete, "a".into())]);
    }

    #[test]
    fn a_truncate_comes_first_and_wipes_what_was_before_it() {
        let got = folded(vec![
            entry("1-0", &[(Op::Put, "a")]),
            entry("2-0", &[(Op::Truncate, "")]),
            entry("3-0", &[(Op::Put, "b")]),
        ]);
        assert_eq!(got, [(Op::Truncate, "".into()), (Op::Put, "b".into())]);
    }

    #[test]
    fn a_row_that_moves_between_two_buckets_of_the_reader_stays() {
        for moved in [
            vec![entry("1-0", &[(Op::Delete, "a")]), entry("1-0", &[(Op::Put, "a")])],
            vec![entry("1-0", &[(Op::Put, "a")]), entry("1-0", &[(Op::Delete, "a")])],
        ] {
            assert_eq!(folded(moved), [(Op::Put, "a".into())]);
        }
    }
}
