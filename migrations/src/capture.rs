//! The declared tables in, triggers on each one that note which of its rows changed out.

use posduif_catalogue::{Facts, capture};
use posduif_model::{TableName, rule::RuleSet};
use tokio_postgres::Client;

use crate::error::MigrationError;

/// Gives every table that can be synced its triggers, and takes them from the others; repeating it changes nothing.
///
/// Whoever writes to a table is waited for: triggers come between two transactions.
pub(crate) async fn ensure(
    client: &mut Client,
    rules: &RuleSet,
    publication: &str,
    tables: &[TableName],
) -> Result<(), MigrationError> {
    drop_others(client, tables).await?;
    let facts = Facts::load(client, rules, publication, None).await?;
    let registered = client.query("SELECT table_name FROM posduif_engine.capture", &[]).await?;
    let registered: Vec<String> = registered.iter().map(|row| row.get(0)).collect();
    for (declaration, facts) in rules.tables().iter().zip(&facts.tables) {
        let Some(facts) = facts.as_ref().filter(|_| tables.contains(&declaration.table)) else { continue };
        let Some(body) = capture::body(declaration, facts) else { continue };
        let found = &facts.capture;
        let transaction = client.transaction().await?;
        if found.body.as_ref() != Some(&body) {
            transaction.batch_execute(&capture::create_function(declaration, &body)).await?;
            let close = format!("REVOKE ALL ON FUNCTION {}() FROM PUBLIC", capture::function(declaration));
            transaction.batch_execute(&close).await?;
        }
        // With another function before them, what they noted was by another declaration.
        let is_registered = registered.contains(&declaration.table.to_string());
        if found.body.as_ref() != Some(&body) || !found.notes_moves || !is_registered {
            transaction.batch_execute(&capture::create_triggers(declaration)).await?;
            let register = "INSERT INTO posduif_engine.capture AS c (relation, table_name)
                            VALUES ($1::oid::regclass, $2)
                            ON CONFLICT (table_name) DO UPDATE
                               SET relation = excluded.relation, noted_by = excluded.noted_by, enabled = false";
            transaction.execute(register, &[&facts.oid, &declaration.table.to_string()]).await?;
        }
        transaction.commit().await?;
    }
    Ok(())
}

/// Takes the triggers from all tables; returns those that had them.
pub(crate) async fn withdraw(client: &Client) -> Result<Vec<String>, MigrationError> {
    let exists = "SELECT to_regclass('posduif_engine.capture') IS NOT NULL";
    if !client.query_one(exists, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(Vec::new());
    }
    let rows = client.query("SELECT table_name FROM posduif_engine.capture", &[]).await?;
    drop_others(client, &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Takes the triggers from tables that are not synced any more.
async fn drop_others(client: &Client, tables: &[TableName]) -> Result<(), MigrationError> {
    let kept: Vec<String> = tables.iter().map(TableName::to_string).collect();
    let sql = "SELECT c.relation::oid, p.oid IS NOT NULL, c.relation::text
                 FROM posduif_engine.capture c LEFT JOIN pg_class p ON p.oid = c.relation
                WHERE p.oid IS NULL OR c.table_name <> ALL ($1::text[])";
    for row in client.query(sql, &[&kept]).await? {
        let (oid, exists, name): (u32, bool, String) = (row.get(0), row.get(1), row.get(2));
        if exists {
            client.batch_execute(&capture::drop_triggers(&name)).await?;
        }
        client.execute("DELETE FROM posduif_engine.capture WHERE relation = $1::oid", &[&oid]).await?;
    }
    Ok(())
}
