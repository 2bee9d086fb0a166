//! A place in a snapshot's tables in, one page of rows out.

use posduif_model::{
    Lsn,
    cursor::Resume,
    rule::{BucketTemplate, RuleSet, TableDeclaration},
};
use tokio_postgres::IsolationLevel;

use super::{
    SyncError,
    body::Body,
    incoming::{Page, Reader},
};
use crate::store::{StoreError, catalogue, snapshot::SnapshotTable};

/// The parts of a snapshot: each declared table once per bucket that its rows go to.
///
/// They follow from the rules alone, whose hash is in the cursor, so an index into them keeps its meaning.
fn parts(rules: &RuleSet) -> impl Iterator<Item = (&TableDeclaration, &BucketTemplate)> {
    rules.tables().iter().flat_map(|table| table.buckets.iter().map(move |bucket| (table, bucket)))
}

/// Reads one page in a transaction of its own, which begins after the watermark was read: every commit up to
/// `from` is visible in it.
pub(super) async fn read(
    reader: &Reader<'_>,
    rules: &RuleSet,
    from: Lsn,
    part: usize,
    after: Option<Vec<String>>,
) -> Result<Page, SyncError> {
    let mut client = reader.tenant.database.client().await?;
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(StoreError::from)?;
    let shapes = catalogue::shapes(&transaction, rules.tables().iter().map(|d| &d.table)).await?;
    let mut body = Body::default();
    let mut room = reader.limit;
    let mut after = after;
    let mut at = Resume::Mark { from };
    for (index, (declaration, bucket)) in parts(rules).enumerate().skip(part) {
        if room == 0 {
            at = Resume::Table { from, part: index, after: None };
            break;
        }
        let start = after.take();
        // A table that does not exist yet, or cannot be published, has no rows in the log either.
        let Some(shape) = shapes.get(&declaration.table) else { continue };
        let Some(table) = SnapshotTable::bind(declaration, shape)? else { continue };
        let rows = table.page(&transaction, bucket, reader.user, start.as_deref(), room + 1).await?;
        for row in rows.iter().take(room) {
            body.push_row(&declaration.table, &row.key, &row.row, from);
        }
        if rows.len() > room {
            let last = rows.get(room.saturating_sub(1)).map(|row| row.after.clone());
            at = Resume::Table { from, part: index, after: last };
            break;
        }
        room -= rows.len();
    }
    transaction.commit().await.map_err(StoreError::from)?;
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
