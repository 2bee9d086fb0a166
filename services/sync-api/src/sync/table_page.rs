//! A place in a snapshot's tables in, one page of rows out.

use deadpool_postgres::Client;
use posduif_model::{
    Lsn,
    cursor::{LastRow, Resume},
    rule::{BucketTemplate, RuleSet, TableDeclaration},
};
use tokio_postgres::IsolationLevel;

use super::{
    SyncError,
    error::OTHER_SERVER,
    filling::Filling,
    incoming::{Page, Reader},
};
use crate::{
    declaration,
    store::{StoreError, catalogue, snapshot::SnapshotTable, wal},
};

/// Where a page begins.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The watermark when the snapshot began.
    pub from: Lsn,
    pub part: usize,
    pub after: Option<LastRow>,
    /// Of the server that the log follows.
    pub timeline: u32,
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
    let Place { from, part, mut after, timeline } = place;
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
    let mut filling = Filling::new(reader.limit, from);
    let mut at = Resume::Mark { from };
    'parts: for (index, (declaration, bucket)) in parts(rules).enumerate().skip(part) {
        if filling.is_full() {
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
        // Where reading goes on, and the last row that a cursor can name; those behind it are left out, all of them.
        let (mut place, mut named) = (start.map(|last| last.key), None);
        loop {
            let wanted = filling.wanted();
            let rows = table.page(&transaction, bucket, reader.user, place.as_deref(), wanted).await?;
            let is_end = rows.len() < wanted;
            for row in rows {
                if filling.is_full() && named.is_some() {
                    let last = named.map(|key| LastRow { shape: table.key_shape(), key });
                    at = Resume::Table { from, part: index, after: last };
                    break 'parts;
                }
                filling.push(&declaration.table, &row);
                if row.is_addressable() {
                    named = Some(row.after.clone());
                }
                place = Some(row.after);
            }
            if is_end {
                break;
            }
        }
    }
    transaction.commit().await.map_err(StoreError::from)?;
    if wal::flush(client).await? != timeline {
        return Err(OTHER_SERVER);
    }
    let (body, left_out) = filling.finish();
    for ((table, reason), rows) in left_out {
        tracing::warn!(
            tenant = %reader.tenant.id, %table, reason, rows,
            "rows are too large to be synced and were left out of a snapshot; raise sync.max_row_bytes or make them \
             smaller"
        );
    }
    Ok(Page { body, at, lsn: from, has_more: true, snapshot: true })
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
