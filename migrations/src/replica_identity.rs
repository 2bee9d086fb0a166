//! The declared tables in, those that can be published with a replica identity that keeps old rows out.

use posduif_catalogue::{Facts, judge};
use posduif_model::{Source, TableName, rule::RuleSet, table::quote_identifier};
use tokio_postgres::Client;

use crate::error::MigrationError;

/// Gives each declared table `REPLICA IDENTITY FULL` unless an index was chosen for it, and returns the tables
/// that can be published.
///
/// A partitioned table gets it with every partition that it has now, because PostgreSQL goes by that of the partition;
/// one that is made later comes without, and gets it when this is repeated. Tables whose own updates would
/// break, or that devices could not hold, are left out.
pub(crate) async fn prepare(
    client: &Client,
    rules: &RuleSet,
    publication: &str,
) -> Result<Vec<TableName>, MigrationError> {
    let facts = Facts::load(client, rules, publication, None).await?;
    let problems = judge(&facts, rules, publication, Source::Wal);
    let mut ready = Vec::new();
    for (declaration, facts) in rules.tables().iter().zip(&facts.tables) {
        let table = &declaration.table;
        let Some(facts) = facts.as_ref().filter(|_| !problems.forbid(table)) else { continue };
        let chosen = facts.identity == 'i' && !facts.is_partitioned();
        if facts.identity != 'f' && !chosen {
            keep_whole_rows(client, &table.to_sql()).await?;
        }
        for partition in facts.partitions.iter().filter(|partition| partition.identity != 'f') {
            keep_whole_rows(client, &partition.to_sql()).await?;
        }
        ready.push(table.clone());
    }
    Ok(ready)
}

async fn keep_whole_rows(client: &Client, table: &str) -> Result<(), MigrationError> {
    Ok(client.batch_execute(&format!("ALTER TABLE {table} REPLICA IDENTITY FULL")).await?)
}

/// A list of tables as SQL.
pub(crate) fn sql_list(tables: &[TableName]) -> String {
    let heartbeat = format!("{}.{}", quote_identifier("posduif_engine"), quote_identifier("heartbeat"));
    tables.iter().map(TableName::to_sql).chain([heartbeat]).collect::<Vec<_>>().join(", ")
}
