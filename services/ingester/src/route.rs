//! One raw row message in, the operations for each bucket out; no I/O.

use std::collections::BTreeSet;

use posduif_model::{Bucket, Change, Op, row::RowError, value::Datum};

use crate::{
    decode::{OldRow, Tuple},
    relations::{BucketSource, SyncedTable},
};

/// What the readers of each bucket get for one message.
pub type Routed = Vec<(Bucket, Vec<Change>)>;

impl SyncedTable {
    /// A new row goes to all its buckets.
    pub fn insert(&self, new: &[Datum<'_>]) -> Result<Routed, RowError> {
        let put = self.put(new)?;
        Ok(self.buckets_of(new).into_iter().map(|bucket| (bucket, vec![put.clone()])).collect())
    }

    /// A deleted row leaves all its buckets.
    pub fn delete(&self, old: &OldRow<'_>) -> Result<Routed, RowError> {
        let (OldRow::Key(old) | OldRow::Full(old)) = old;
        let delete = self.gone(old)?;
        Ok(self.buckets_of(old).into_iter().map(|bucket| (bucket, vec![delete.clone()])).collect())
    }

    /// A changed row: put where it is now, delete where it no longer is, both where its key changed.
    ///
    /// An update that changes nothing a reader sees goes nowhere.
    pub fn update(&self, old: Option<&OldRow<'_>>, new: &[Datum<'_>]) -> Result<Routed, RowError> {
        let new = resolve(old, new);
        // Without an old row the identity's columns, and with them key and buckets, are as before.
        let (before, whole) = match old {
            Some(OldRow::Full(old)) => (old, true),
            Some(OldRow::Key(old)) => (old, false),
            None => (&new, false),
        };
        let (left, now) = (self.buckets_of(before), self.buckets_of(&new));
        let key_changed = !self.projection.same_key(before, &new);
        if whole && !key_changed && left == now && self.projection.same(before, &new) {
            return Ok(Routed::new());
        }
        let gone = match key_changed || left.iter().any(|bucket| !now.contains(bucket)) {
            true => Some(self.gone(before)?),
            false => None,
        };
        let put = self.put(&new)?;
        let mut routed = Routed::new();
        for bucket in left.union(&now) {
            let leaves = left.contains(bucket) && (key_changed || !now.contains(bucket));
            let delete = gone.iter().filter(|_| leaves).cloned();
            let puts = now.contains(bucket).then(|| put.clone());
            routed.push((*bucket, delete.chain(puts).collect()));
        }
        Ok(routed)
    }

    /// The operation for a table that was truncated; it concerns every reader.
    pub fn emptied(&self) -> Change {
        Change { op: Op::Truncate, table: self.table.clone(), key: String::new(), row: String::new() }
    }

    fn put(&self, row: &[Datum<'_>]) -> Result<Change, RowError> {
        let (key, row) = (self.projection.key_json(row)?, self.projection.row_json(row)?);
        Ok(Change { op: Op::Put, table: self.table.clone(), key, row })
    }

    fn gone(&self, row: &[Datum<'_>]) -> Result<Change, RowError> {
        let key = self.projection.key_json(row)?;
        Ok(Change { op: Op::Delete, table: self.table.clone(), key, row: String::new() })
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
    use posduif_model::{row::Projection, table::Column};

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
            projection: Projection::new(&columns, &["id".into()], Some(&listed)).unwrap(),
            buckets: vec![BucketSource::User(1)],
        }
    }

    fn row<'a>(id: &'a str, owner: &'a str, title: &'a str, hidden: &'a str) -> Tuple<'a> {
        [id, owner, title, hidden].map(Datum::Text).to_vec()
    }

    fn ops(routed: Routed) -> Vec<(String, Vec<(Op, String)>)> {
        let name = |change: Change| (change.op, change.key);
        routed.into_iter().map(|(b, c)| (b.to_string(), c.into_iter().map(name).collect())).collect()
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
        assert!(tasks().update(Some(&old), &row("1", A, "t", "other")).unwrap().is_empty());
    }

    #[test]
    fn an_untouched_toasted_value_comes_from_the_old_row() {
        let old = OldRow::Full(row("1", A, "long", "h"));
        let mut new = row("1", B, "", "h");
        new[2] = Datum::Unchanged;
        let routed = tasks().update(Some(&old), &new).unwrap();
        assert!(routed[1].1[0].row.contains("\"title\":\"long\""));
        assert_eq!(tasks().update(None, &new), Err(RowError::Unresolved("title".into())));
    }

    #[test]
    fn a_row_without_an_owner_goes_nowhere() {
        let mut orphan = row("1", A, "t", "h");
        orphan[1] = Datum::Null;
        assert!(tasks().insert(&orphan).unwrap().is_empty());
    }

    #[test]
    fn a_message_to_oneself_is_one_entry() {
        let both = SyncedTable { buckets: vec![BucketSource::User(1), BucketSource::User(1)], ..tasks() };
        assert_eq!(both.insert(&row("1", A, "t", "h")).unwrap().len(), 1);
    }
}
