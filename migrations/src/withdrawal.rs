//! A tenant database in, the same database without what exists for sync alone out.

use posduif_model::{rule::RuleSet, table::quote_identifier};
use tokio_postgres::Client;

use crate::{capture, error::MigrationError, tombstones};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withdrawn {
    pub publication: Option<String>,
    /// The tables that lost their triggers.
    pub triggers: Vec<String>,
}

/// Removes the publication, where it is named, and the triggers; rows, tables and replica identities stay.
pub(crate) async fn withdraw(
    client: &mut Client,
    rules: &RuleSet,
    publication: Option<&str>,
) -> Result<Withdrawn, MigrationError> {
    let mut triggers = tombstones::tables(client).await?;
    tombstones::ensure(client, rules, &[]).await?;
    triggers.extend(capture::withdraw(client).await?);
    triggers.sort();
    triggers.dedup();
    let mut withdrawn = Withdrawn { publication: None, triggers };
    let Some(name) = publication else { return Ok(withdrawn) };
    let exists = "SELECT FROM pg_publication WHERE pubname = $1 AND NOT puballtables";
    if client.query_opt(exists, &[&name]).await?.is_some() {
        client.batch_execute(&format!("DROP PUBLICATION IF EXISTS {}", quote_identifier(name))).await?;
        withdrawn.publication = Some(name.to_owned());
    }
    Ok(withdrawn)
}
