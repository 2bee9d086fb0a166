//! A tenant database in, the same database with Posduif's tables, publication and replica identities out.

mod capture;
mod error;
mod grants;
mod publication;
mod replica_identity;
mod roles;
mod schema;
mod tombstones;
mod withdrawal;

use posduif_model::rule::RuleSet;
use tokio_postgres::Client;

pub use error::MigrationError;
pub use roles::Roles;
pub use withdrawal::Withdrawn;

use roles::Role;

/// Key of the advisory lock that keeps two migrations of one database apart; the letters "posduif" in ASCII.
const LOCK: i64 = 0x0070_6f73_6475_6966;

/// What a migration changed and what the operator should look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Names of the migrations that ran now.
    pub applied: Vec<String>,
    /// Sentences about things that sync cannot do as declared, as the ingester would refuse them.
    pub warnings: Vec<String>,
}

/// Brings a tenant database to the current schema and its publication to the declared tables.
///
/// It can be repeated and run by several processes at once: an advisory lock lets one at a time work. The
/// connection must belong to a role that owns the published tables and may create in the database. Where the
/// services have roles of their own, each is granted what it needs, and loses what an earlier version gave it beyond that.
///
/// # Errors
/// See [`MigrationError`]; whatever ran before the error stays, the next run goes on from there.
pub async fn migrate(
    client: &mut Client,
    rules: &RuleSet,
    publication: &str,
    roles: Option<Roles<'_>>,
) -> Result<Report, MigrationError> {
    schema::check_server(client).await?;
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    let outcome = migrate_locked(client, rules, publication, roles).await;
    client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await?;
    outcome
}

async fn migrate_locked(
    client: &mut Client,
    rules: &RuleSet,
    publication: &str,
    roles: Option<Roles<'_>>,
) -> Result<Report, MigrationError> {
    let applied = schema::apply(client).await?;
    grants::close_functions(client).await?;
    let roles = Role::find(client, roles).await?;
    let before = publication::published(client, publication).await?;
    for role in roles.iter().filter(|role| !role.is_owner) {
        grants::take_back(client, role, rules, &before).await?;
    }
    let tables = replica_identity::prepare(client, rules, publication).await?;
    publication::ensure(client, publication, &tables).await?;
    tombstones::ensure(client, rules, &tables).await?;
    capture::ensure(client, rules, publication, &tables).await?;
    for role in roles.iter().filter(|role| !role.is_owner) {
        grants::ensure(client, role, rules, publication).await?;
    }
    let warnings = roles::warnings(client, rules, publication, &roles).await?;
    Ok(Report { applied, warnings })
}

/// Takes from a tenant database what exists for sync alone: the publication, where it is named, and the triggers that note
/// what happens to rows. It can be repeated; [`migrate`] makes all of it anew.
///
/// # Errors
/// See [`MigrationError`]; the next run goes on from there.
pub async fn withdraw(
    client: &mut Client,
    rules: &RuleSet,
    publication: Option<&str>,
) -> Result<Withdrawn, MigrationError> {
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    let outcome = withdrawal::withdraw(client, rules, publication).await;
    client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await?;
    outcome
}
