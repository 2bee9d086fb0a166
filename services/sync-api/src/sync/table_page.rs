//! A place in a snapshot's tables in, one page of rows out.

use std::collections::BTreeMap;

use deadpool_postgres::Client;
use posduif_model::{
    Lsn, TableName,
    cursor::{LastRow, Resume},
    row::EncodedRow,
    rule::{BucketTemplate, RuleSet, TableDeclaration},
};
use tokio_postgres::IsolationLevel;

use super::{
    SyncError,
    body::Body,
    incoming::{Page, Reader},
};
use crate::{
    declaration,
    store::{
        StoreError, catalogue,
        snapshot::{SnapshotRow, SnapshotTable},
    },
};

/// Where a page begins.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The watermark when the snapshot began.
    pub from: Lsn,
    pub part: usize,
    pub after: Option<LastRow>,
}

/// The parts of a snapshot: each declared table once per bucket that its rows go to.
///
/// They follow from the rules alone, whose hash is in the cursor, so an index into them keeps its meaning.
fn parts(rules: &RuleSet) -> impl Iterator<Item = (&TableDeclaration, &BucketTemplate)> {
    rules.tables().iter().flat_map(|table| table.buckets.iter().map(move |bucket| (table, bucket)))
}

/// Reads one page in a transaction of its own, which begins after the watermark was read: every commit up to
/// `from` is visible in it.
pub(super) async fn read(reader: &Reader<'_>, rules: &RuleSet, place: Place) -> Result<Page, SyncError> {
    let is_first = place.part == 0 && place.after.is_none();
    let page = reader.tenant.database.run(async |client| page(client, reader, rules, place).await).await;
    let is_altered = match &page {
        Err(SyncError::Store(StoreError::Missing(_))) => true,
        Err(SyncError::Store(StoreError::Rejected(state))) => state == "22P02",
        _ => false,
    };
    match page {
        Err(_) if is_altered && is_first => Err(SyncError::NotReady("a table is being altered")),
        Err(_) if is_altered => Err(SyncError::Expired),
        page => page,
    }
}

async fn page(
    client: &mut Client,
    reader: &Reader<'_>,
    rules: &RuleSet,
    place: Place,
) -> Result<Page, SyncError> {
    let Place { from, part, mut after } = place;
    let wanted = parts(rules).skip(part).map(|(declaration, _)| &declaration.table);
    let existing = catalogue::existing(client, wanted).await?;
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(StoreError::from)?;
    // Before the first query fixes the snapshot: to an older snapshot a table that is rewritten meanwhile is empty.
    catalogue::lock(&transaction, &existing).await?;
    let shapes = catalogue::shapes(&transaction, existing.iter()).await?;
    let types = catalogue::types(&*transaction, &shapes).await?;
    let mut filling = Filling { body: Body::default(), room: reader.limit, from, left_out: BTreeMap::new() };
    let mut at = Resume::Mark { from };
    for (index, (declaration, bucket)) in parts(rules).enumerate().skip(part) {
        if filling.room == 0 {
            at = Resume::Table { from, part: index, after: None };
            break;
        }
        let start = after.take();
        let table = match shapes.get(&declaration.table) {
            None => None,
            Some(shape) => {
                declaration::check_shape(declaration, shape)?;
                SnapshotTable::bind(declaration, shape, &types, rules.max_row_bytes())?
            }
        };
        let Some(table) = table else {
            // A table that does not exist yet, or cannot be published, has no rows in the log either. But one that
            // was there when the last page was read went meanwhile.
            if start.is_some() {
                return Err(SyncError::Expired);
            }
            continue;
        };
        if start.as_ref().is_some_and(|last| last.shape != table.key_shape()) {
            return Err(SyncError::Expired);
        }
        let mut start = start.map(|last| last.key);
        let last = loop {
            let limit = filling.room + 1;
            let rows = table.page(&transaction, bucket, reader.user, start.as_deref(), limit).await?;
            match filling.take(&declaration.table, rows) {
                Taken::All => break None,
                Taken::UpTo(key) => break Some(LastRow { shape: table.key_shape(), key }),
                Taken::Nothing(key) => start = Some(key),
            }
        };
        if let Some(last) = last {
            at = Resume::Table { from, part: index, after: Some(last) };
            break;
        }
    }
    transaction.commit().await.map_err(StoreError::from)?;
    for ((table, reason), rows) in filling.left_out {
        tracing::warn!(
            tenant = %reader.tenant.id, %table, reason, rows,
            "rows are too large to be synced and were left out of a snapshot; raise sync.max_row_bytes or make them \
             smaller"
        );
    }
    Ok(Page { body: filling.body, at, lsn: from, has_more: true, snapshot: true })
}

/// A page that is being filled with rows.
struct Filling<'a> {
    body: Body,
    /// How many rows it may still take; those that are left out count too, so that a page ends.
    room: usize,
    from: Lsn,
    left_out: BTreeMap<(&'a TableName, &'static str), usize>,
}

/// How far a page has come in the rows that it was given.
enum Taken {
    /// There are no more rows.
    All,
    /// The page is full; it ends with the row of this key.
    UpTo(Vec<String>),
    /// All rows were left out and none can be named by a cursor: the page goes on after this key.
    Nothing(Vec<String>),
}

impl<'a> Filling<'a> {
    /// Takes rows in key order; one more than there is room for says that there are more.
    fn take(&mut self, table: &'a TableName, mut rows: Vec<SnapshotRow>) -> Taken {
        let is_full = rows.len() > self.room;
        rows.truncate(self.room);
        let end = match is_full {
            false => rows.len(),
            // Rows after that one are left out, and come again.
            true => rows.iter().rposition(SnapshotRow::is_addressable).map_or(0, |last| last + 1),
        };
        let after_all = rows.last().map(|row| row.after.clone()).unwrap_or_default();
        let rest = if end == 0 { rows.len() } else { end };
        rows.truncate(rest);
        for row in &rows {
            match &row.encoded {
                Ok(EncodedRow { key, row }) => self.body.push_row(table, key, row, self.from),
                Err(why) => *self.left_out.entry((table, why.reason())).or_default() += 1,
            }
        }
        match (is_full, rows.pop()) {
            (false, _) => {
                self.room -= rest;
                Taken::All
            }
            (true, Some(last)) if end > 0 => Taken::UpTo(last.after),
            (true, _) => Taken::Nothing(after_all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_each_table_with_each_of_its_buckets() {
        let rules = RuleSet::new(&[]).unwrap();
        let parts: Vec<String> = parts(&rules).map(|(t, b)| format!("{} {b}", t.table)).collect();
        let expected = [
            "public.messages user:{sender_id}",
            "public.messages user:{recipient_id}",
            "public.users shared",
        ];
        assert_eq!(parts, expected);
    }
}
