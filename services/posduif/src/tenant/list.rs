//! `posduif tenant list`: a configuration in, its tenants and what their databases hold out.

use std::{path::Path, time::Duration};

use anyhow::Context;
use posduif_model::TenantId;
use posduif_runtime::{
    config::{Config, TenantConfig},
    postgres,
};
use serde::Serialize;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::word::{self, Word};
use crate::columns;

/// One configured tenant.
#[derive(Serialize)]
struct Listed {
    tenant_id: TenantId,
    database: String,
    /// Its database answers, and why it does not.
    reachable: bool,
    problem: Option<String>,
    /// `wal` or `polling`.
    mode: &'static str,
    /// What it holds; absent where that cannot be asked or is not migrated.
    #[serde(flatten)]
    content: Option<Content>,
}

#[derive(Serialize)]
struct Content {
    epoch: Option<String>,
    users: i64,
    /// Those that are not revoked.
    devices: i64,
    /// What an operator said last.
    paused_at: Option<String>,
    dropped_at: Option<String>,
    changed_by: Option<String>,
}

const HEAD: [&str; 8] = ["TENANT", "DATABASE", "REACHABLE", "MODE", "STANDING", "EPOCH", "USERS", "DEVICES"];
/// The longest that one database may keep the list waiting.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn list(path: &Path, json: bool) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    let asked = config.tenants.iter().map(|tenant| tokio::spawn(look(config.clone(), tenant.clone())));
    let mut tenants = Vec::new();
    for tenant in asked.collect::<Vec<_>>() {
        tenants.push(tenant.await?);
    }
    match json {
        true => println!("{}", serde_json::to_string_pretty(&tenants)?),
        false => {
            print!("{}", columns::render(HEAD, tenants.iter().map(row)));
            for Listed { tenant_id, problem, .. } in &tenants {
                problem.iter().for_each(|problem| println!("\n{tenant_id}: {problem}"));
            }
        }
    }
    Ok(())
}

async fn look(config: Config, tenant: TenantConfig) -> Listed {
    let asked = match timeout(PATIENCE, ask(&tenant)).await {
        Ok(asked) => asked,
        Err(_) => Err(anyhow::anyhow!("{} does not answer", tenant.url.redacted())),
    };
    let (reachable, problem, content) = match asked {
        Ok(Some(content)) => (true, None, Some(content)),
        Ok(None) => (true, Some("the database is not migrated; run posduif migrate".to_owned()), None),
        Err(error) => (false, Some(format!("{error:#}")), None),
    };
    let mode = tenant.source(&config.sync.wal).as_str();
    Listed {
        database: tenant.url.database().to_owned(),
        tenant_id: tenant.id,
        reachable,
        problem,
        mode,
        content,
    }
}

/// Asks as the services' own role, so that what these could not reach shows.
async fn ask(tenant: &TenantConfig) -> anyhow::Result<Option<Content>> {
    let (client, driver) = postgres::connect(tenant, "posduif").await?;
    let driver = tokio::spawn(driver);
    let content = content(&client).await?;
    drop(client);
    driver.await.context("closing the connection")??;
    Ok(content)
}

async fn content(client: &Client) -> Result<Option<Content>, tokio_postgres::Error> {
    let is_migrated = "SELECT to_regclass('posduif_engine.sync_epoch') IS NOT NULL";
    if !client.query_one(is_migrated, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let sql = "SELECT (SELECT nullif(epoch, '') FROM posduif_engine.sync_epoch),
                      (SELECT count(*) FROM public.users),
                      (SELECT count(*) FROM public.devices WHERE revoked_at IS NULL)";
    let row = client.query_one(sql, &[]).await?;
    let Word { paused_at, dropped_at, changed_by } = word::read_if_any(client).await?;
    Ok(Some(Content {
        epoch: row.try_get(0)?,
        users: row.try_get(1)?,
        devices: row.try_get(2)?,
        paused_at,
        dropped_at,
        changed_by: Some(changed_by).filter(|by| !by.is_empty()),
    }))
}

fn row(tenant: &Listed) -> [String; 8] {
    let unknown = || "-".to_owned();
    let content = tenant.content.as_ref();
    [
        tenant.tenant_id.to_string(),
        tenant.database.clone(),
        if tenant.reachable { "yes" } else { "no" }.to_owned(),
        tenant.mode.to_owned(),
        content.map_or_else(unknown, |content| standing(content).to_owned()),
        content.and_then(|content| content.epoch.clone()).unwrap_or_else(unknown),
        content.map_or_else(unknown, |content| content.users.to_string()),
        content.map_or_else(unknown, |content| content.devices.to_string()),
    ]
}

fn standing(content: &Content) -> &'static str {
    match (&content.dropped_at, &content.paused_at) {
        (Some(_), _) => "dropped",
        (None, Some(_)) => "paused",
        (None, None) => "active",
    }
}
