//! A running PostgreSQL in, the demo tenant's database with its users out.

use std::path::Path;

use anyhow::Context;
use posduif_model::table::quote_identifier;
use posduif_provision::Postgres;
use posduif_runtime::{
    config::{Config, TenantConfig},
    postgres,
};
use tokio_postgres::Client;

use super::settings::Settings;
use crate::{cli::UserKind, migrate, operator, user};

/// The demo tenant, and its database.
pub const TENANT: &str = "tenant_1";
/// The services' role: it may replicate, and owns the tenant's database, but is no superuser.
pub const ROLE: &str = "posduif";

/// The address of the tenant's database for the services.
pub fn url(server: &Postgres, settings: &Settings) -> String {
    format!("postgres://{ROLE}:{}@127.0.0.1:{}/{TENANT}", settings.service_password, server.port())
}

/// Creates role, database, tables and web users where they are missing.
///
/// The configuration is read as the services will read it, with what the environment overrides.
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
    let (mut client, driver) = postgres::connect(tenant, "posduif-dev").await?;
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
    drop(client);
    driver.await.context("closing the connection")??;
    Ok(())
}

async fn create_database(server: &Postgres, settings: &Settings) -> anyhow::Result<()> {
    let admin = TenantConfig::new("postgres".parse()?, server.url("postgres").parse()?);
    let (client, driver) = postgres::connect(&admin, "posduif-dev").await?;
    let driver = tokio::spawn(driver);
    ensure_role(&client, settings).await?;
    let found = client.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&TENANT]).await?;
    if found.is_none() {
        let create = format!(
            "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'",
            quote_identifier(TENANT),
            quote_identifier(ROLE)
        );
        client.batch_execute(&create).await?;
    }
    drop(client);
    driver.await.context("closing the connection")??;
    Ok(())
}

async fn ensure_role(client: &Client, settings: &Settings) -> anyhow::Result<()> {
    let found = client.query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&ROLE]).await?;
    if found.is_none() {
        let create = format!("CREATE ROLE {} LOGIN REPLICATION", quote_identifier(ROLE));
        client.batch_execute(&create).await?;
    }
    // The password is of letters and digits only.
    let password = format!("ALTER ROLE {} PASSWORD '{}'", quote_identifier(ROLE), settings.service_password);
    Ok(client.batch_execute(&password).await?)
}
