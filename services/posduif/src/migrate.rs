//! A configuration in, migrated tenant databases out.

use std::path::Path;

use anyhow::Context;
use posduif_migrations::{Report, Roles};
use posduif_model::rule::RuleSet;
use posduif_runtime::{
    config::{Config, TenantConfig},
    postgres,
};

use crate::tenant::word;

/// Migrates every tenant and says what it did; goes on after a tenant that fails, and fails in the end.
pub async fn run(path: &Path) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    let rules = config.sync.rules()?;
    let mut failed = 0;
    for tenant in &config.tenants {
        // What was removed with it must not come back because somebody migrates the others.
        if let Ok(Some(since)) = dropped(tenant).await {
            println!("{}: dropped at {since}, left alone; posduif tenant add takes it up again", tenant.id);
            continue;
        }
        match migrate(tenant, &rules, &config.sync.wal.publication).await {
            Ok(report) => print(tenant, &report),
            Err(error) => {
                failed += 1;
                eprintln!("{}: {error:#}", tenant.id);
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} tenants were not migrated", config.tenants.len());
    Ok(())
}

/// When the tenant was dropped; whoever cannot be asked is told of by the migration.
async fn dropped(tenant: &TenantConfig) -> anyhow::Result<Option<String>> {
    let (client, driver) = postgres::connect(&tenant.as_admin()?, "posduif-migrate").await?;
    let driver = tokio::spawn(driver);
    let word = word::read_if_any(&client).await?;
    drop(client);
    driver.await.context("closing the connection")??;
    Ok(word.dropped_at)
}

/// Migrates one tenant as its administrator.
pub async fn migrate(tenant: &TenantConfig, rules: &RuleSet, publication: &str) -> anyhow::Result<Report> {
    let admin = tenant.as_admin()?;
    let (mut client, driver) = postgres::connect(&admin, "posduif-migrate").await?;
    let driver = tokio::spawn(driver);
    let roles = tenant.url.config().get_user().zip(tenant.ingester_role());
    let roles = roles.map(|(api, ingester)| Roles { api, ingester });
    let report = posduif_migrations::migrate(&mut client, rules, publication, roles).await?;
    drop(client);
    driver.await.context("closing the connection")??;
    Ok(report)
}

pub fn print(tenant: &TenantConfig, report: &Report) {
    match report.applied.len() {
        0 => println!("{}: already up to date", tenant.id),
        _ => println!("{}: applied {}", tenant.id, report.applied.join(", ")),
    }
    for warning in &report.warnings {
        println!("{}: warning: {warning}", tenant.id);
    }
}
