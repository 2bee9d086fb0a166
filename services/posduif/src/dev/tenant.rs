//! A running PostgreSQL in, the demo tenant's database with its users out.

use std::path::Path;

use anyhow::Context;
use posduif_model::table::quote_identifier;
use posduif_provision::{Postgres, shipped};
use posduif_runtime::{
    config::{Config, TenantConfig},
    postgres,
};
use postgres_protocol::password::scram_sha_256;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::settings::Settings;
use crate::{cli::UserKind, migrate, operator, user};

/// The demo tenant, and its database.
pub const TENANT: &str = "tenant_1";
/// The role of earlier versions, which owned everything.
const FORMER_ROLE: &str = "posduif";

/// The address of the tenant's database for a role.
pub fn url(server: &Postgres, role: &str, password: Option<&str>) -> String {
    let password = password.map(|password| format!(":{password}")).unwrap_or_default();
    format!("postgres://{role}{password}@127.0.0.1:{}/{TENANT}", server.port())
}

/// Creates roles, database, tables and web users where they are missing.
///
/// The configuration is read as the tool will read it, with what the environment overrides.
pub async fn prepare(server: &Postgres, settings: &Settings, config: &Path) -> anyhow::Result<()> {
    create_database(server, settings).await.context("cannot create the tenant's database")?;
    let config = Config::load(config)?;
    let rules = config.sync.rules()?;
    let tenant = config.tenants.first().context("the configuration names no tenant")?;
    let report = migrate::migrate(tenant, &rules, &config.sync.wal.publication).await;
    report
        .context("cannot migrate the tenant")?
        .warnings
        .iter()
        .for_each(|warning| println!("Warning: {warning}"));
    let (mut client, driver) = postgres::connect(&tenant.as_admin()?, "posduif-dev").await?;
    let driver = tokio::spawn(driver);
    let caches = operator::caches(&config.redis, &tenant.id)?;
    for web_user in &settings.web_users {
        user::ensure(
            &mut client,
            &caches,
            &web_user.username,
            UserKind::Web,
            Some(web_user.password.clone()),
        )
        .await?;
    }
    close(client, driver).await
}

async fn create_database(server: &Postgres, settings: &Settings) -> anyhow::Result<()> {
    let (client, driver) = superuser(server, "postgres").await?;
    let passwords = &settings.roles;
    for (setting, password) in [
        ("posduif.admin_password", &passwords.admin),
        ("posduif.ingester_password", &passwords.ingester),
        ("posduif.api_password", &passwords.api),
    ] {
        // What a server may log is no password.
        let verifier = scram_sha_256(password.as_bytes());
        client.execute("SELECT set_config($1, $2, false)", &[&setting, &verifier]).await?;
    }
    client.batch_execute(shipped::ROLES_SQL).await?;
    let found = client.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&TENANT]).await?;
    let (database, owner) = (quote_identifier(TENANT), quote_identifier(shipped::ADMIN));
    let ensure = match found {
        None => format!("CREATE DATABASE {database} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8'"),
        Some(_) => format!("ALTER DATABASE {database} OWNER TO {owner}"),
    };
    client.batch_execute(&ensure).await?;
    close(client, driver).await?;
    let (client, driver) = superuser(server, TENANT).await?;
    let former = client.query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&FORMER_ROLE]).await?;
    if former.is_some() {
        let former = quote_identifier(FORMER_ROLE);
        client
            .batch_execute(&format!("REASSIGN OWNED BY {former} TO {owner}; DROP OWNED BY {former}"))
            .await?;
        client.batch_execute(&format!("DROP ROLE {former}")).await?;
    }
    client.batch_execute(shipped::TENANT_SQL).await?;
    close(client, driver).await
}

type Driven = JoinHandle<Result<(), tokio_postgres::Error>>;

async fn superuser(server: &Postgres, database: &str) -> anyhow::Result<(Client, Driven)> {
    let admin = TenantConfig::new("postgres".parse()?, server.url(database).parse()?);
    let (client, driver) = postgres::connect(&admin, "posduif-dev").await?;
    Ok((client, tokio::spawn(driver)))
}

async fn close(client: Client, driver: Driven) -> anyhow::Result<()> {
    drop(client);
    Ok(driver.await.context("closing the connection")??)
}
