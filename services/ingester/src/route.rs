//! One raw row message in, the operations for each bucket out; no I/O.

use std::collections::BTreeSet;

use posduif_model::{
    Bucket, Change, Op,
    row::{EncodedRow, RowError, TooLarge},
    value::Datum,
};

use crate::{
    decode::{OldRow, Tuple},
    relations::{BucketSource, SyncedTable},
};

/// What one message means for readers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// What the readers of each bucket get.
    pub entries: Vec<(Bucket, Vec<Change>)>,
    /// Why nobody gets the new version although it has buckets.
    pub left_out: Option<TooLarge>,
}

/// Where a version of a row is put.
#[derive(Default)]
struct Put {
    /// None where nobody sees the version.
    change: Option<Change>,
    buckets: BTreeSet<Bucket>,
    left_out: Option<TooLarge>,
}

impl SyncedTable {
    /// A new row goes to all its buckets.
    pub fn insert(&self, new: &[Datum<'_>]) -> Result<Routed, RowError> {
        let Put { change: put, buckets: now, left_out } = self.put(new)?;
        let entries = now.into_iter().map(|bucket| (bucket, put.iter().cloned().collect())).collect();
        Ok(Routed { entries, left_out })
    }

    /// A deleted row leaves all its buckets.
    pub fn delete(&self, old: &OldRow<'_>) -> Result<Routed, RowError> {
        let (OldRow::Key(old) | OldRow::Full(old)) = old;
        let gone = self.gone(old)?;
        let of = |bucket| Some((bucket, vec![gone.clone()?]));
        Ok(Routed { entries: self.buckets_of(old).into_iter().filter_map(of).collect(), left_out: None })
    }

    /// A changed row: put where it is now, delete where it no longer is, both where its key changed.
    ///
    /// An update that changes nothing a reader sees goes nowhere. A version that is too large is nowhere.
    pub fn update(&self, old: Option<&OldRow<'_>>, new: &[Datum<'_>]) -> Result<Routed, RowError> {
        let new = resolve(old, new);
        // Without an old row the identity's columns, and with them key and buckets, are as before.
        let (before, whole) = match old {
            Some(OldRow::Full(old)) => (old, true),
            Some(OldRow::Key(old)) => (old, false),
            None => (&new, false),
        };
        let left = self.buckets_of(before);
        let key_changed = !self.projection.same_key(before, &new);
        if whole && !key_changed && left == self.buckets_of(&new) && self.projection.same(before, &new) {
            return Ok(Routed::default());
        }
        let Put { change: put, buckets: now, left_out } = self.put(&new)?;
        // Whether the old version was itself too large is not asked: to delete what is not there does no harm.
        let gone = match key_changed || left.iter().any(|bucket| !now.contains(bucket)) {
            true => self.gone(before)?,
            false => None,
        };
        let mut entries = Vec::new();
        for bucket in left.union(&now) {
            let leaves = left.contains(bucket) && (key_changed || !now.contains(bucket));
            let delete = gone.iter().filter(|_| leaves);
            let puts = put.iter().filter(|_| now.contains(bucket));
            let changes: Vec<Change> = delete.chain(puts).cloned().collect();
            if !changes.is_empty() {
                entries.push((*bucket, changes));
            }
        }
        Ok(Routed { entries, left_out })
    }

    /// The operation for a table that was truncated; it concerns every reader.
    pub fn emptied(&self) -> Change {
        Change { op: Op::Truncate, table: self.table.clone(), key: String::new(), row: String::new() }
    }

    /// The operation for a row as it is now, and the buckets where that is seen: none for a row that is too large.
    fn put(&self, row: &[Datum<'_>]) -> Result<Put, RowError> {
        let buckets = self.buckets_of(row);
        if buckets.is_empty() {
            return Ok(Put::default());
        }
        Ok(match self.projection.encode(row)? {
            Ok(EncodedRow { key, row }) => {
                let change = Change { op: Op::Put, table: self.table.clone(), key, row };
                Put { change: Some(change), buckets, left_out: None }
            }
            Err(too_large) => Put { left_out: Some(too_large), ..Put::default() },
        })
    }

    /// The operation for a row that is gone; a key that is too large was never seen.
    fn gone(&self, row: &[Datum<'_>]) -> Result<Option<Change>, RowError> {
        let key = self.projection.encode_key(row)?.ok();
        Ok(key.map(|key| Change { op: Op::Delete, table: self.table.clone(), key, row: String::new() }))
    }

    /// A NULL, or a text that is no user's id, names no bucket: nobody sees the row there.
    fn buckets_of(&self, row: &[Datum<'_>]) -> BTreeSet<Bucket> {
        let bucket = |source: &BucketSource| match source {
            BucketSource::Shared => Some(Bucket::Shared),
            BucketSource::User(place) => match row.get(*place) {
                Some(Datum::Text(text)) => text.parse().ok().map(Bucket::User),
                _ => None,
            },
        };
        self.buckets.iter().filter_map(bucket).collect()
    }
}

/// The new row with its untouched TOASTed values taken from the old one, where that has them.
fn resolve<'a>(old: Option<&OldRow<'a>>, new: &[Datum<'a>]) -> Tuple<'a> {
    let Some(OldRow::Full(old)) = old else {
        return new.to_vec();
    };
    let value = |(place, value): (usize, &Datum<'a>)| match value {
        Datum::Unchanged => old.get(place).copied().unwrap_or(Datum::Unchanged),
        known => *known,
    };
    new.iter().enumerate().map(value).collect()
}

#[cfg(test)]
mod tests {
    use posduif_model::{row::Projection, table::Column, value::TypeCatalog};

    use super::*;

    const A: &str = "00000000-0000-0000-0000-00000000000a";
    const B: &str = "00000000-0000-0000-0000-00000000000b";

    /// id, owner, title, hidden; the last column does not leave the server.
    fn tasks() -> SyncedTable {
        let columns: Vec<Column> = ["id", "owner", "title", "hidden"]
            .map(|name| Column { name: name.into(), type_oid: 25, nullable: true })
            .into();
        let listed = ["id", "owner", "title"].map(String::from);
        SyncedTable {
            table: "tasks".parse().unwrap(),
            projection: Projection::new(
                &columns,
                &["id".into()],
                Some(&listed),
                &TypeCatalog::default(),
                200,
            )
            .unwrap(),
            buckets: vec![BucketSource::User(1)],
        }
    }

    fn row<'a>(id: &'a str, owner: &'a str, title: &'a str, hidden: &'a str) -> Tuple<'a> {
        [id, owner, title, hidden].map(Datum::Text).to_vec()
    }

    fn ops(routed: Routed) -> Vec<(String, Vec<(Op, String)>)> {
        let name = |change: Change| (change.op, change.key);
        routed.entries.into_iter().map(|(b, c)| (b.to_string(), c.into_iter().map(name).collect())).collect()
    }

    fn user(id: &str) -> String {
        format!("user:{id}")
    }

    fn key(id: &str) -> String {
        format!("{{\"id\":\"{id}\"}}")
    }

    #[test]
    fn a_row_that_moves_is_deleted_where_it_was_and_put_where_it_is() {
        let old = OldRow::Full(row("1", A, "t", "h"));
        let got = ops(tasks().update(Some(&old), &row("1", B, "t", "h")).unwrap());
        assert_eq!(got, [(user(A), vec![(Op::Delete, key("1"))]), (user(B), vec![(Op::Put, key("1"))])]);
    }

    #[test]
    fn a_changed_key_is_a_delete_and_a_put_in_one_entry() {
        let old = OldRow::Full(row("1", A, "t", "h"));
        let got = ops(tasks().update(Some(&old), &row("2", A, "t", "h")).unwrap());
        assert_eq!(got, [(user(A), vec![(Op::Delete, key("1")), (Op::Put, key("2"))])]);
    }

    #[test]
    fn an_update_of_unlisted_columns_goes_nowhere() {
        let old = OldRow::Full(row("1", A, "t", "h"));
        assert!(tasks().update(Some(&old), &row("1", A, "t", "other")).unwrap() == Routed::default());
    }

    #[test]
    fn an_untouched_toasted_value_comes_from_the_old_row() {
        let old = OldRow::Full(row("1", A, "long", "h"));
        let mut new = row("1", B, "", "h");
        new[2] = Datum::Unchanged;
        let routed = tasks().update(Some(&old), &new).unwrap();
        assert!(routed.entries[1].1[0].row.contains("\"title\":\"long\""));
        assert_eq!(tasks().update(None, &new), Err(RowError::Unresolved("title".into())));
    }

    #[test]
    fn a_row_without_an_owner_goes_nowhere() {
        let mut orphan = row("1", A, "t", "h");
        orphan[1] = Datum::Null;
        assert_eq!(tasks().insert(&orphan).unwrap(), Routed::default());
    }

    #[test]
    fn a_message_to_oneself_is_one_entry() {
        let both = SyncedTable { buckets: vec![BucketSource::User(1), BucketSource::User(1)], ..tasks() };
        assert_eq!(both.insert(&row("1", A, "t", "h")).unwrap().entries.len(), 1);
    }

    #[test]
    fn a_version_that_is_too_large_is_seen_by_nobody() {
        let long = "x".repeat(200);
        let (small, large) = (row("1", A, "t", "h"), row("1", A, &long, "h"));
        let [was_small, was_large] = [&small, &large].map(|row| OldRow::Full(row.clone()));
        let (gone, back) =
            ([(user(A), vec![(Op::Delete, key("1"))])], [(user(A), vec![(Op::Put, key("1"))])]);

        let inserted = tasks().insert(&large).unwrap();
        assert!(matches!(inserted.left_out, Some(TooLarge::Row(bytes)) if bytes > 200), "{inserted:?}");
        assert_eq!(ops(inserted), []);
        let grown = tasks().update(Some(&was_small), &large).unwrap();
        assert!(grown.left_out.is_some());
        assert_eq!(ops(grown), gone);
        let shrunk = tasks().update(Some(&was_large), &small).unwrap();
        assert_eq!((shrunk.left_out, ops(shrunk)), (None, back.into()));
        let moved = tasks().update(Some(&was_small), &row("1", B, &long, "h")).unwrap();
        assert_eq!(ops(moved), gone);
        assert_eq!(ops(tasks().delete(&was_large).unwrap()), gone);
    }

    #[test]
    fn a_key_that_is_too_large_goes_nowhere_at_all() {
        let long = "k".repeat(10_000);
        let (short, large) = (row("1", A, "t", "h"), row(&long, A, "t", "h"));
        let [was_short, was_large] = [&short, &large].map(|row| OldRow::Full(row.clone()));
        assert!(matches!(tasks().insert(&large).unwrap().left_out, Some(TooLarge::Key(_))));
        assert_eq!(ops(tasks().delete(&was_large).unwrap()), []);
        let renamed = tasks().update(Some(&was_large), &short).unwrap();
        assert_eq!(ops(renamed), [(user(A), vec![(Op::Put, key("1"))])]);
        let renamed = tasks().update(Some(&was_short), &large).unwrap();
        assert_eq!(ops(renamed), [(user(A), vec![(Op::Delete, key("1"))])]);
    }

    #[test]
    fn a_large_row_without_an_owner_is_no_news() {
        let long = "x".repeat(200);
        let mut orphan = row("1", A, &long, "h");
        orphan[1] = Datum::Null;
        assert_eq!(tasks().insert(&orphan).unwrap(), Routed::default());
    }
}
