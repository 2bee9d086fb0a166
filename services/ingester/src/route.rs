//! One raw row message in, the operations for each bucket out; no I/O.

use std::collections::BTreeSet;

use posduif_model::{
    Bucket, Change, Op,
    row::{EncodedRow, RowError, TooLarge},
    value::Datum,
};

use crate::{
    decode::{Identity, OldRow, Tuple},
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

/// A row whose readers are not known: passing it over would leave it on their devices, or keep it from them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RouteError {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(
        "its old version is missing or incomplete; run ALTER TABLE {0} REPLICA IDENTITY FULL, on each partition too"
    )]
    OldRow(String),
    #[error("the column that names its user came without a value; run ALTER TABLE {0} REPLICA IDENTITY FULL")]
    Bucket(String),
}

impl SyncedTable {
    /// A new row goes to all its buckets.
    pub fn insert(&self, new: &[Datum<'_>]) -> Result<Routed, RouteError> {
        let Put { change: put, buckets: now, left_out } = self.put(new)?;
        let entries = now.into_iter().map(|bucket| (bucket, put.iter().cloned().collect())).collect();
        Ok(Routed { entries, left_out })
    }

    /// A deleted row leaves all its buckets.
    pub fn delete(&self, old: &OldRow<'_>) -> Result<Routed, RouteError> {
        let old = self.kept(old)?;
        let gone = self.gone(old)?;
        let of = |bucket| Some((bucket, vec![gone.clone()?]));
        Ok(Routed { entries: self.buckets_of(old)?.into_iter().filter_map(of).collect(), left_out: None })
    }

    /// A changed row: put where it is now, delete where it no longer is, both where its key changed.
    ///
    /// An update that changes nothing a reader sees goes nowhere. A version that is too large is nowhere.
    pub fn update(&self, old: Option<&OldRow<'_>>, new: &[Datum<'_>]) -> Result<Routed, RouteError> {
        let new = resolve(old, new);
        let before = match old {
            Some(old) => self.kept(old)?,
            // An index's columns, and with them key and buckets, are as before: else the old ones had come along.
            None if self.identity == Identity::Index => &new,
            None => return Err(self.no_old_row()),
        };
        let whole = self.identity == Identity::Full;
        let left = self.buckets_of(before)?;
        // Compared as readers see it: two texts of one value are one key to them, or two.
        let key_changed = self.projection.encode_key(before)? != self.projection.encode_key(&new)?;
        if whole && !key_changed && left == self.buckets_of(&new)? && self.projection.same(before, &new) {
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

    /// A row as a poll finds it, and the buckets where any version of it since the last poll was: put where it is now,
    /// delete where it no longer is. `noted` has the key that was noted, which another text of the same value may have.
    pub fn polled(
        &self,
        now: Option<&[Datum<'_>]>,
        noted: &[Datum<'_>],
        before: &BTreeSet<Bucket>,
    ) -> Result<Routed, RouteError> {
        let renamed = match now {
            Some(row) => self.projection.encode_key(noted)? != self.projection.encode_key(row)?,
            None => true,
        };
        let Put { change: put, buckets, left_out } =
            now.map_or_else(|| Ok(Put::default()), |row| self.put(row))?;
        let gone = self.gone(noted)?;
        let mut before = before.clone();
        if let (Some(row), true) = (now, left_out.is_some()) {
            // Only moves are noted while nobody polls: what has grown too large where it is was there before.
            before.extend(self.buckets_of(row)?);
        }
        let mut entries = Vec::new();
        for bucket in before.union(&buckets) {
            let leaves = before.contains(bucket) && (renamed || !buckets.contains(bucket));
            let delete = gone.iter().filter(|_| leaves);
            let puts = put.iter().filter(|_| buckets.contains(bucket));
            let changes: Vec<Change> = delete.chain(puts).cloned().collect();
            if !changes.is_empty() {
                entries.push((*bucket, changes));
            }
        }
        Ok(Routed { entries, left_out })
    }

    /// Whether everyone sees its rows.
    pub fn is_shared(&self) -> bool {
        self.buckets.contains(&BucketSource::Shared)
    }

    /// The operation for a table that was truncated; it concerns every reader.
    pub fn emptied(&self) -> Change {
        Change { op: Op::Truncate, table: self.table.clone(), key: String::new(), row: String::new() }
    }

    /// The old row, of the kind that the replica identity promises.
    fn kept<'r, 'a>(&self, old: &'r OldRow<'a>) -> Result<&'r Tuple<'a>, RouteError> {
        match (old, self.identity) {
            (OldRow::Full(row), Identity::Full) | (OldRow::Key(row), Identity::Index) => Ok(row),
            _ => Err(self.no_old_row()),
        }
    }

    fn no_old_row(&self) -> RouteError {
        RouteError::OldRow(self.table.to_sql())
    }

    /// The operation for a row as it is now, and the buckets where that is seen: none for a row that is too large.
    fn put(&self, row: &[Datum<'_>]) -> Result<Put, RouteError> {
        let buckets = self.buckets_of(row)?;
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

    /// A NULL names no bucket: nobody sees the row there. A value that did not come says nothing about who does.
    fn buckets_of(&self, row: &[Datum<'_>]) -> Result<BTreeSet<Bucket>, RouteError> {
        let mut buckets = BTreeSet::new();
        for source in &self.buckets {
            match source {
                BucketSource::Shared => {
                    buckets.insert(Bucket::Shared);
                }
                BucketSource::User(place) => match row.get(*place) {
                    // Not a uuid only where the column is none, which the catalogue's check refuses.
                    Some(Datum::Text(text)) => buckets.extend(text.parse().ok().map(Bucket::User)),
                    Some(Datum::Null) => {}
                    Some(Datum::Unchanged) | None => return Err(RouteError::Bucket(self.table.to_sql())),
                },
            }
        }
        Ok(buckets)
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
            identity: Identity::Full,
        }
    }

    /// The same table with an index over id and owner as its identity.
    fn indexed() -> SyncedTable {
        SyncedTable { identity: Identity::Index, ..tasks() }
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
        assert_eq!(indexed().update(None, &new), Err(RowError::Unresolved("title".into()).into()));
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
    fn a_poll_takes_a_row_that_has_grown_too_large_from_those_who_had_it() {
        let long = "x".repeat(200);
        let large = row("1", A, &long, "h");
        // Whoever is found by the version alone was noted nowhere.
        let got = tasks().polled(Some(&large), &row("1", A, "t", "h"), &BTreeSet::new()).unwrap();
        assert!(got.left_out.is_some());
        assert_eq!(ops(got), [(user(A), vec![(Op::Delete, key("1"))])]);
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

    #[test]
    fn without_the_old_row_nothing_is_said_about_a_row_whose_identity_is_all_of_it() {
        let refused = Err(RouteError::OldRow("\"public\".\"tasks\"".into()));
        let new = row("1", A, "t", "h");
        assert_eq!(tasks().update(None, &new), refused);
        let key = OldRow::Key(new.clone());
        assert_eq!(tasks().update(Some(&key), &new), refused);
        assert_eq!(tasks().delete(&key), refused);
        assert_eq!(indexed().delete(&OldRow::Full(new)), refused);
    }

    #[test]
    fn an_identity_by_index_says_where_a_row_was_by_its_own_columns_alone() {
        let put = |id: &str| vec![(Op::Put, key(id))];
        let got = ops(indexed().update(None, &row("1", A, "t", "h")).unwrap());
        assert_eq!(got, [(user(A), put("1"))]);
        // What lies outside of the index is NULL in the old row, which is no value.
        let old = OldRow::Key(vec![Datum::Text("1"), Datum::Text(A), Datum::Null, Datum::Null]);
        let got = ops(indexed().update(Some(&old), &row("1", B, "t", "h")).unwrap());
        assert_eq!(got, [(user(A), vec![(Op::Delete, key("1"))]), (user(B), put("1"))]);
        assert_eq!(ops(indexed().delete(&old).unwrap()), [(user(A), vec![(Op::Delete, key("1"))])]);
    }

    #[test]
    fn a_user_whose_value_did_not_come_is_an_error_and_not_nobody() {
        let mut new = row("1", A, "t", "h");
        new[1] = Datum::Unchanged;
        assert!(matches!(indexed().update(None, &new), Err(RouteError::Bucket(_))));
        assert!(matches!(tasks().insert(&new[..1]), Err(RouteError::Row(_) | RouteError::Bucket(_))));
    }

    #[test]
    fn a_row_between_two_users_leaves_the_one_and_stays_with_the_other() {
        let both = SyncedTable { buckets: vec![BucketSource::User(1), BucketSource::User(3)], ..tasks() };
        let old = OldRow::Full(row("1", A, "t", B));
        let got = ops(both.update(Some(&old), &row("1", B, "t", B)).unwrap());
        assert_eq!(got, [(user(A), vec![(Op::Delete, key("1"))]), (user(B), vec![(Op::Put, key("1"))])]);
        let mut nobody = row("1", A, "t", B);
        (nobody[1], nobody[3]) = (Datum::Null, Datum::Null);
        let got = ops(both.update(Some(&old), &nobody).unwrap());
        assert_eq!(got, [user(A), user(B)].map(|bucket| (bucket, vec![(Op::Delete, key("1"))])));
    }

    #[test]
    fn a_row_that_everyone_sees_and_that_leaves_a_user_is_put_for_all_at_the_same_position() {
        let both = SyncedTable { buckets: vec![BucketSource::Shared, BucketSource::User(1)], ..tasks() };
        let old = OldRow::Full(row("1", A, "t", "h"));
        let got = ops(both.update(Some(&old), &row("1", B, "t", "h")).unwrap());
        // Of a delete and a put at one position the reader keeps the put.
        let (put, delete) = (vec![(Op::Put, key("1"))], vec![(Op::Delete, key("1"))]);
        assert_eq!(got, [("shared".to_owned(), put.clone()), (user(A), delete), (user(B), put)]);
    }

    #[test]
    fn keys_are_compared_as_readers_see_them() {
        let columns = [Column { name: "id".into(), type_oid: 1700, nullable: false }];
        let numbers = SyncedTable {
            projection: Projection::new(&columns, &["id".into()], None, &TypeCatalog::default(), 200)
                .unwrap(),
            buckets: vec![BucketSource::Shared],
            ..tasks()
        };
        let old = OldRow::Full(vec![Datum::Text("1.0")]);
        let got = ops(numbers.update(Some(&old), &[Datum::Text("1.00")]).unwrap());
        assert_eq!(got[0].1, [(Op::Delete, key("1.0")), (Op::Put, key("1.00"))]);
    }
}
