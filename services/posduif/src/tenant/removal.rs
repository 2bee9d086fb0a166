//! `posduif tenant drop`: a tenant in, nothing of it left but its rows out; cut at any step and run again, it completes.

use std::{io::BufRead, path::Path, time::Duration};

use anyhow::Context;
use posduif_changelog::removal;
use posduif_migrations::Withdrawn;
use posduif_model::TenantId;
use posduif_runtime::{
    config::{Config, TenantConfig, TenantsFile},
    postgres,
};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, error::SqlState};

use super::{
    arguments, following, lines,
    word::{self, Say},
};
use crate::operator;

/// How long an ingester has to remove the slot, which this tool's role may not be allowed to.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before this tool tries it itself: an ingester that is there does it by then.
const GRACE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(250);
/// Replicas look at the configuration every two seconds, and make keys for the tenants that they serve.
const REPLICAS: Duration = Duration::from_secs(5);

/// What became of the tenant.
#[derive(Serialize)]
struct Dropped {
    tenant_id: TenantId,
    dropped_at: Option<String>,
    /// The slot that is gone, now or before.
    slot: Option<String>,
    publication: Option<String>,
    triggers: Vec<String>,
    keys: u64,
    /// The entry in the `tenants_file` was removed.
    entry_removed: bool,
    /// What a person has to do.
    remaining: Option<String>,
}

pub async fn run(path: &Path, arguments: arguments::Drop) -> anyhow::Result<()> {
    let arguments::Drop { tenant, yes, keep_publication, json } = arguments;
    let config = Config::load(path)?;
    let entry = config.tenants.iter().find(|entry| entry.id == tenant);
    if !yes {
        confirm(&tenant, entry)?;
    }
    let mut dropped = Dropped {
        tenant_id: tenant.clone(),
        dropped_at: None,
        slot: None,
        publication: None,
        triggers: Vec::new(),
        keys: 0,
        entry_removed: false,
        remaining: None,
    };
    match entry {
        Some(entry) => in_postgres(&config, entry, keep_publication, &mut dropped).await?,
        None => {
            dropped.remaining = Some(format!(
                "{tenant} is not configured, so only its keys in Redis could be removed; posduif status shows slots that were \
                 left behind"
            ));
        }
    }
    let redis = operator::redis(&config.redis)?;
    dropped.keys += removal::remove(&redis, &tenant).await?;
    if entry.is_some() {
        (dropped.entry_removed, dropped.remaining) = out_of_the_configuration(path, &config, &tenant)?;
    }
    if dropped.entry_removed {
        eprintln!("waiting until the replicas have let go of it …");
        sleep(REPLICAS).await;
        dropped.keys += removal::remove(&redis, &tenant).await?;
    }
    match json {
        true => println!("{}", serde_json::to_string(&dropped)?),
        false => print(&dropped),
    }
    Ok(())
}

fn print(dropped: &Dropped) {
    let Dropped { tenant_id: tenant, slot, publication, triggers, keys, .. } = dropped;
    println!("{tenant} is dropped");
    if let Some(slot) = slot {
        println!("replication slot {slot} is gone");
    }
    if let Some(publication) = publication {
        println!("publication {publication} is gone");
    }
    triggers
        .iter()
        .for_each(|table| println!("the triggers that noted what happens to rows of {table} are gone"));
    println!("{keys} keys in Redis are gone");
    if slot.is_some() {
        println!(
            "its database stays with all rows, Posduif's own tables among them, and replica identities as they are; posduif tenant \
             add takes it up again, as a tenant whose devices resync"
        );
    }
    if let Some(remaining) = &dropped.remaining {
        println!("{remaining}");
    }
}

fn confirm(tenant: &TenantId, entry: Option<&TenantConfig>) -> anyhow::Result<()> {
    let place = entry.map_or_else(|| "its keys in Redis alone".to_owned(), |entry| entry.url.redacted());
    eprintln!(
        "This ends sync for every device of {tenant} ({place}): slot, publication and log are removed, rows stay.\n\
         Type the tenant's id to go on:"
    );
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("reading standard input")?;
    anyhow::ensure!(
        line.trim() == tenant.as_str(),
        "that is not {tenant}; nothing was changed. --yes asks for nothing"
    );
    Ok(())
}

async fn in_postgres(
    config: &Config,
    entry: &TenantConfig,
    keep_publication: bool,
    dropped: &mut Dropped,
) -> anyhow::Result<()> {
    let slot = config.sync.wal.slot_name(entry.url.database());
    let (mut client, driver) = match postgres::connect(&entry.as_admin()?, "posduif").await {
        // No database with a slot can be dropped, so whoever dropped it has removed the slot.
        Err(postgres::ConnectError::Postgres { source, .. })
            if source.code() == Some(&SqlState::INVALID_CATALOG_NAME) =>
        {
            return Ok(());
        }
        connected => connected?,
    };
    let driver = tokio::spawn(driver);
    if word::is_migrated(&client).await? {
        dropped.dropped_at = word::say(&client, Say::Drop).await?.dropped_at;
        following::left(&client, &slot).await?;
    }
    remove_slot(&client, entry, &slot).await?;
    dropped.slot = Some(slot);
    let publication = (!keep_publication).then_some(config.sync.wal.publication.as_str());
    let Withdrawn { publication, triggers } =
        posduif_migrations::withdraw(&mut client, &config.sync.rules()?, publication).await?;
    (dropped.publication, dropped.triggers) = (publication, triggers);
    drop(client);
    Ok(driver.await.context("closing the connection")??)
}

/// Waits until the slot is gone. An ingester that is there removes it; else whoever may replicate does.
async fn remove_slot(client: &Client, entry: &TenantConfig, slot: &str) -> anyhow::Result<()> {
    let (begun, mut refusal) = (Instant::now(), None);
    let mut own_turn = begun + GRACE;
    while following::followers(client, slot).await?.slot_exists {
        if Instant::now() >= own_turn {
            own_turn += GRACE;
            match drop_slot(client, entry, slot).await {
                Ok(()) => continue,
                Err(error) => refusal = Some(error),
            }
        }
        if begun.elapsed() > PATIENCE {
            let why = refusal.map(|error| format!(" ({error:#})")).unwrap_or_default();
            anyhow::bail!(
                "replication slot {slot} is still there: no ingester removed it, and this tool could not{why}. As a role with \
                 REPLICATION: psql -d {} -c \"SELECT pg_drop_replication_slot('{slot}')\"; then run this again",
                entry.url.database()
            );
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// As the operator, whom it may be forbidden, and as the ingester, whose password the tool may not have.
async fn drop_slot(client: &Client, entry: &TenantConfig, slot: &str) -> anyhow::Result<()> {
    let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                WHERE slot_name = $1 AND database = current_database()";
    match client.execute(sql, &[&slot]).await {
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {}
        done => return Ok(done.map(drop)?),
    }
    let (client, driver) = postgres::connect(&entry.as_ingester()?, "posduif").await?;
    let driver = tokio::spawn(driver);
    let done = client.execute(sql, &[&slot]).await;
    drop(client);
    driver.await.context("closing the connection")??;
    Ok(done.map(drop)?)
}

/// Takes the entry out where the tool keeps the list; else says where a person finds it.
fn out_of_the_configuration(
    path: &Path,
    config: &Config,
    tenant: &TenantId,
) -> anyhow::Result<(bool, Option<String>)> {
    if let Some(file) = &config.tenants_file
        && TenantsFile::new(file.clone()).remove(tenant)?
    {
        return Ok((true, None));
    }
    let place = config.tenants.iter().position(|entry| entry.id == *tenant).unwrap_or_default();
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = match lines::of_entry(&text, place) {
        Some(lines) => format!("lines {} to {}", lines.start(), lines.end()),
        None => format!("entry {} of tenants", place + 1),
    };
    let remaining = format!(
        "remove {lines} ({tenant}) from {}; until then ingesters say that it was dropped, and replicas serve what PostgreSQL has. \
         Run this again afterwards: it removes what they left in Redis",
        path.display()
    );
    Ok((false, Some(remaining)))
}
