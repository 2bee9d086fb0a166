//! `posduif tenant pause` and `resume`: a tenant in, nobody or somebody who follows it out.

use std::path::Path;

use anyhow::Context;
use posduif_changelog::LogReader;
use posduif_model::TenantId;
use serde_json::json;

use super::{
    following,
    word::{self, Say},
};
use crate::operator::{self, Operator};

/// The slot stays: what happens meanwhile is in the WAL that it keeps.
pub async fn pause(path: &Path, tenant: &TenantId, json: bool) -> anyhow::Result<()> {
    let operator = Operator::open(path, Some(tenant)).await?;
    let slot = slot(&operator)?;
    let word = word::say(&operator.client, Say::Pause).await?;
    if let Some(since) = &word.dropped_at {
        anyhow::bail!("{tenant} was dropped at {since}; there is nothing to pause");
    }
    let found = following::left(&operator.client, &slot).await?;
    let kept = found.retained_bytes;
    match json {
        true => println!(
            "{}",
            json!({"tenant_id": tenant, "paused_at": word.paused_at, "changed_by": word.changed_by,
                   "slot": found.slot_exists.then_some(&slot), "retained_bytes": kept})
        ),
        false => {
            println!("{tenant} is paused: no ingester follows it; devices read what the log has, and write");
            if let Some(kept) = kept {
                println!(
                    "PostgreSQL keeps WAL for its slot {slot} meanwhile, {kept} bytes now, until the disk is full or \
                     max_slot_wal_keep_size is reached and the slot is lost"
                );
            }
            println!("posduif tenant resume {tenant} goes on from there");
        }
    }
    operator.close().await
}

pub async fn resume(path: &Path, tenant: &TenantId, wait: bool, json: bool) -> anyhow::Result<()> {
    let operator = Operator::open(path, Some(tenant)).await?;
    let slot = slot(&operator)?;
    let word = word::say(&operator.client, Say::Resume).await?;
    if let Some(since) = &word.dropped_at {
        anyhow::bail!("{tenant} was dropped at {since}; posduif tenant add takes it up again");
    }
    if wait {
        let log = LogReader::new(operator::redis(&operator.config.redis)?, tenant);
        following::joined(&operator.client, &log, &slot).await.context("the tenant is no longer paused")?;
    }
    match (json, wait) {
        (true, _) => println!(
            "{}",
            json!({"tenant_id": tenant, "changed_by": word.changed_by, "followed": if wait { Some(true) } else { None }})
        ),
        (false, true) => println!("{tenant} is followed again"),
        (false, false) => println!("{tenant} is no longer paused; ingesters find out within seconds"),
    }
    operator.close().await
}

fn slot(operator: &Operator) -> anyhow::Result<String> {
    let entry = operator.config.tenants.iter().find(|entry| entry.id == operator.tenant);
    let entry = entry.context("the tenant is not configured")?;
    Ok(operator.config.sync.wal.slot_name(entry.url.database()))
}
