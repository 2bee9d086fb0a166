//! The publication, with exactly the declared tables and without column lists.
//!
//! A column list would make the application's own UPDATE and DELETE fail wherever the replica identity is wider
//! than the list; columns are cut in the ingester instead.

use posduif_model::{TableName, table::quote_identifier};
use tokio_postgres::{Client, GenericClient};

use crate::{error::MigrationError, replica_identity::sql_list};

const OPTIONS: &str = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true, \
                       publish_generated_columns = stored";

/// Creates the publication, or makes an existing one name these tables and the heartbeat.
pub(crate) async fn ensure(
    client: &mut Client,
    publication: &str,
    tables: &[TableName],
) -> Result<(), MigrationError> {
    if publication.is_empty() || publication.len() > 63 || publication.contains('\0') {
        return Err(MigrationError::PublicationName(publication.to_owned()));
    }
    let name = quote_identifier(publication);
    let list = sql_list(tables);
    let transaction = client.transaction().await?;
    let exists = transaction
        .query_opt("SELECT puballtables FROM pg_publication WHERE pubname = $1", &[&publication])
        .await?
        .map(|row| row.get::<_, bool>(0));
    if exists == Some(true) {
        return Err(MigrationError::AllTables(publication.to_owned()));
    }
    if exists.is_none() {
        transaction
            .batch_execute(&format!("CREATE PUBLICATION {name} FOR TABLE {list} WITH ({OPTIONS})"))
            .await?;
    } else if !matches(&transaction, publication, tables).await? {
        transaction
            .batch_execute(&format!(
                "ALTER PUBLICATION {name} SET TABLE {list}; ALTER PUBLICATION {name} SET ({OPTIONS})"
            ))
            .await?;
    }
    Ok(transaction.commit().await?)
}

/// Whether the publication already is what it should be; an ALTER would lock its tables for nothing.
async fn matches(
    transaction: &tokio_postgres::Transaction<'_>,
    publication: &str,
    tables: &[TableName],
) -> Result<bool, MigrationError> {
    let options: bool = transaction
        .query_one(
            "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot AND pubgencols = 's'
                    AND NOT EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid
                                     AND (r.prattrs IS NOT NULL OR r.prqual IS NOT NULL))
                    AND NOT EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid)
               FROM pg_publication p WHERE pubname = $1",
            &[&publication],
        )
        .await?
        .get(0);
    let mut found: Vec<String> =
        published(transaction, publication).await?.iter().map(TableName::to_string).collect();
    let mut wanted: Vec<String> =
        tables.iter().map(TableName::to_string).chain(["posduif_engine.heartbeat".to_owned()]).collect();
    found.sort();
    wanted.sort();
    Ok(options && found == wanted)
}

/// The tables that the publication names now.
pub(crate) async fn published(
    client: &impl GenericClient,
    publication: &str,
) -> Result<Vec<TableName>, MigrationError> {
    let sql = "SELECT n.nspname::text, c.relname::text
                 FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
                 JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE p.pubname = $1";
    let rows = client.query(sql, &[&publication]).await?;
    Ok(rows.iter().filter_map(|row| TableName::new(row.get(0), row.get(1)).ok()).collect())
}
