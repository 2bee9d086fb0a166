//! Keys of rows in, those rows as pages have them out.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::Transaction;
use posduif_model::{
    TableName, UserId,
    rule::{BucketTemplate, RuleSet, TableDeclaration},
    table::quote_identifier,
};

use super::{StoreError, catalogue, snapshot::SnapshotTable};

/// Which row is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub table: TableName,
    /// As SQL.
    pub condition: String,
}

/// The JSON of each row; `None` for one that is not there, or that the user does not see: it is in no bucket of the
/// user's, or too large for anybody.
pub async fn find(
    transaction: &Transaction<'_>,
    rules: &RuleSet,
    user: UserId,
    wanted: &[&Wanted],
) -> Result<Vec<Option<String>>, StoreError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let tables: BTreeSet<&TableName> = wanted.iter().map(|wanted| &wanted.table).collect();
    let shapes = catalogue::shapes(transaction, tables.into_iter()).await?;
    let types = catalogue::types(&**transaction, &shapes).await?;
    let mut bound = BTreeMap::new();
    for (table, shape) in &shapes {
        let Some(declaration) = rules.find(table) else { continue };
        if let Some(rows) = SnapshotTable::bind(declaration, shape, &types, rules.max_row_bytes())? {
            bound.insert(table, (rows, visible(declaration, user)));
        }
    }
    let mut found = Vec::with_capacity(wanted.len());
    for Wanted { table, condition } in wanted {
        let rows = match bound.get(table) {
            Some((rows, visible)) => {
                rows.matching(transaction, &format!("{condition} AND ({visible})")).await?
            }
            None => Vec::new(),
        };
        found.push(rows.into_iter().next().and_then(|row| row.encoded.ok()).map(|encoded| encoded.row));
    }
    Ok(found)
}

/// Whether one of the buckets of a row is read by the user's devices, as SQL.
fn visible(declaration: &TableDeclaration, user: UserId) -> String {
    let buckets = declaration.buckets.iter().map(|bucket| match bucket {
        BucketTemplate::Shared => "true".to_owned(),
        BucketTemplate::User { column } => format!("{} = '{user}'", quote_identifier(column)),
    });
    buckets.collect::<Vec<_>>().join(" OR ")
}
