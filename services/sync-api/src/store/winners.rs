//! Keys of rows in, those rows as pages have them out.

use deadpool_postgres::Transaction;
use posduif_model::{TableName, rule::RuleSet};

use super::{StoreError, catalogue, snapshot::SnapshotTable};

/// Which row is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub table: TableName,
    /// As SQL.
    pub condition: String,
}

/// The JSON of each row; `None` for one that is not there, or that nobody sees because it is too large.
pub async fn find(
    transaction: &Transaction<'_>,
    rules: &RuleSet,
    wanted: &[&Wanted],
) -> Result<Vec<Option<String>>, StoreError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let shapes = catalogue::shapes(transaction, wanted.iter().map(|wanted| &wanted.table)).await?;
    let types = catalogue::types(&**transaction, &shapes).await?;
    let mut found = Vec::with_capacity(wanted.len());
    for Wanted { table, condition } in wanted {
        let bound = match (rules.find(table), shapes.get(table)) {
            (Some(declaration), Some(shape)) => {
                SnapshotTable::bind(declaration, shape, &types, rules.max_row_bytes())?
            }
            _ => None,
        };
        let rows = match &bound {
            Some(bound) => bound.matching(transaction, condition).await?,
            None => Vec::new(),
        };
        found.push(rows.into_iter().next().and_then(|row| row.encoded.ok()).map(|encoded| encoded.row));
    }
    Ok(found)
}
