//! A configuration in, how every tenant stands out: as a table or as JSON.

mod database;
mod fail_over;
mod log;
mod orphan;
mod report;
mod standby;
mod table;
mod verdict;

use std::{collections::BTreeMap, path::Path, process::ExitCode, time::Duration};

use clap::Args;
use posduif_changelog::{LogReader, RedisPool, Timeouts, fleet, pool};
use posduif_model::TenantId;
use posduif_runtime::config::{Config, TenantConfig};
use tokio::{task::JoinSet, time::timeout};

use report::{OrphanSlot, Report, TenantReport};
use verdict::Found;

/// Arguments of `posduif status`.
#[derive(Args)]
pub struct StatusArguments {
    /// Only this tenant
    #[arg(long)]
    tenant: Option<TenantId>,
    /// JSON instead of a table; docs/STATUS.md describes its keys
    #[arg(long)]
    json: bool,
}

/// The longest that one store may keep the report waiting.
const PATIENCE: Duration = Duration::from_secs(20);
/// The exit code of clap for what it cannot understand.
const USAGE: u8 = 2;

/// Prints the report; the exit code says whether every tenant is well (0), one is not (1), or the question makes no sense (2).
pub async fn run(path: &Path, arguments: &StatusArguments) -> anyhow::Result<ExitCode> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return Ok(refuse(&format!("{:#}", anyhow::Error::new(error)))),
    };
    let wanted = |tenant: &&TenantConfig| arguments.tenant.as_ref().is_none_or(|id| *id == tenant.id);
    let tenants: Vec<TenantConfig> = config.tenants.iter().filter(wanted).cloned().collect();
    if let (true, Some(id)) = (tenants.is_empty(), &arguments.tenant) {
        return Ok(refuse(&format!("{id} is no tenant of {}; posduif status shows all", path.display())));
    }
    let report = gather(&config, tenants).await?;
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", table::render(&report)),
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("posduif: {why}");
    ExitCode::from(USAGE)
}

/// Asks all tenants at once: one server that is silent keeps nobody else waiting.
async fn gather(config: &Config, tenants: Vec<TenantConfig>) -> anyhow::Result<Report> {
    let limits = Timeouts { connect: config.redis.connect_timeout, response: config.redis.response_timeout };
    let redis = pool(config.redis.url.expose(), config.redis.pool_size, limits)?;
    // The log's problems say more about a Redis that does not answer.
    let names = timeout(PATIENCE, fleet::at_work(&redis)).await.ok().and_then(Result::ok).unwrap_or_default();
    let mut asked = JoinSet::new();
    for (place, tenant) in tenants.into_iter().enumerate() {
        let (config, redis, ingester) = (config.clone(), redis.clone(), names.get(&tenant.id).cloned());
        asked.spawn(async move {
            let (report, orphans) = look(&config, tenant, redis).await;
            (place, (TenantReport { ingester, ..report }, orphans))
        });
    }
    let (mut reports, mut orphans) = (BTreeMap::new(), BTreeMap::new());
    while let Some(done) = asked.join_next().await {
        let (place, (report, slots)) = done?;
        reports.insert(place, report);
        // Tenants of one cluster see the same slots.
        orphans.extend(slots.into_iter().map(|slot| ((slot.cluster.clone(), slot.slot.clone()), slot)));
    }
    let tenants: Vec<TenantReport> = reports.into_values().collect();
    Ok(Report {
        ok: tenants.iter().all(|tenant| tenant.ok),
        tenants,
        orphan_slots: orphans.into_values().collect(),
    })
}

async fn look(config: &Config, tenant: TenantConfig, redis: RedisPool) -> (TenantReport, Vec<OrphanSlot>) {
    let reader = LogReader::new(redis, &tenant.id);
    let log = match timeout(PATIENCE, log::look(&reader)).await {
        Ok(answer) => answer,
        Err(_) => Err(log::Trouble::Silent),
    };
    let heartbeat = log.as_ref().ok().and_then(|found| found.log.as_ref()?.heartbeat);
    let question = database::Question {
        slot: config.sync.wal.slot_name(tenant.url.database()),
        publication: config.sync.wal.publication.clone(),
        heartbeat,
        known_slots: config
            .tenants
            .iter()
            .map(|tenant| config.sync.wal.slot_name(tenant.url.database()))
            .collect(),
    };
    let database = match timeout(PATIENCE, database::look(&tenant, &question)).await {
        Ok(answer) => answer,
        Err(_) => Err(database::Trouble::Silent(tenant.url.redacted())),
    };
    let (database, orphans) = match database {
        Ok((facts, orphans)) => (Ok(facts), orphans),
        Err(trouble) => (Err(trouble), Vec::new()),
    };
    // A heartbeat every few seconds: whoever is later than three of them is late.
    let patience = 3 * config.sync.wal.heartbeat_interval;
    let found = Found { database, log, slot: question.slot, patience };
    (verdict::report(&tenant, found), orphans)
}
