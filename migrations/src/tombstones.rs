//! The declared tables in, a trigger that notes deleted rows on each one that devices write out.

use posduif_model::{
    TableName,
    rule::{RuleSet, WriteDeclaration},
};
use postgres_protocol::escape::escape_literal;
use tokio_postgres::Client;

use crate::error::MigrationError;

const TRIGGER: &str = "posduif_deleted_rows";

/// A trigger that is there.
struct Found {
    table: TableName,
    /// The columns of owner and version that it was given.
    columns: Vec<String>,
}

/// Gives every table that devices write the trigger, and takes it from the others; repeating it changes nothing.
///
/// Without it a row that the application deleted would come back with the next offline edit of a device. `tables` are
/// those that can be synced. A TRUNCATE notes nothing, nor does a DELETE that names a partition.
pub(crate) async fn ensure(
    client: &Client,
    rules: &RuleSet,
    tables: &[TableName],
) -> Result<(), MigrationError> {
    let wanted: Vec<(&TableName, &WriteDeclaration)> = rules
        .tables()
        .iter()
        .filter(|declaration| tables.contains(&declaration.table))
        .filter_map(|declaration| Some((&declaration.table, declaration.write.as_ref()?)))
        .collect();
    let found = found(client).await?;
    for Found { table, .. } in &found {
        if !wanted.iter().any(|(wanted, _)| *wanted == table) {
            client.batch_execute(&format!("DROP TRIGGER {TRIGGER} ON {}", table.to_sql())).await?;
        }
    }
    for (table, write) in wanted {
        let columns = [write.owner.as_str(), write.version.as_str()];
        if found.iter().any(|found| found.table == *table && found.columns == columns) {
            continue;
        }
        let [owner, version] = columns.map(escape_literal);
        let sql = format!(
            "CREATE OR REPLACE TRIGGER {TRIGGER} AFTER DELETE ON {} REFERENCING OLD TABLE AS former
             FOR EACH STATEMENT EXECUTE FUNCTION posduif_engine.note_deleted_rows({owner}, {version})",
            table.to_sql()
        );
        client.batch_execute(&sql).await?;
    }
    Ok(())
}

/// The tables that have the trigger; none where it was never there.
pub(crate) async fn tables(client: &Client) -> Result<Vec<String>, MigrationError> {
    Ok(found(client).await?.iter().map(|found| found.table.to_string()).collect())
}

async fn found(client: &Client) -> Result<Vec<Found>, MigrationError> {
    // Arguments are stored one after the other, each with a NUL at its end.
    let sql = "SELECT n.nspname::text, c.relname::text, t.tgargs
                 FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE t.tgname = $1 AND t.tgfoid = to_regprocedure('posduif_engine.note_deleted_rows()')
                  AND NOT t.tgisinternal";
    let rows = client.query(sql, &[&TRIGGER]).await?;
    let read = |row: &tokio_postgres::Row| {
        let (schema, name): (String, String) = (row.get(0), row.get(1));
        let arguments: Vec<u8> = row.get(2);
        let columns =
            arguments.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
        let mut columns: Vec<String> = columns.collect();
        columns.pop();
        Some(Found { table: TableName::new(&schema, &name).ok()?, columns })
    };
    Ok(rows.iter().filter_map(read).collect())
}
