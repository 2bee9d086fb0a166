//! PostgreSQL's write-ahead log in, Redis Streams out, one replication slot per tenant.
//!
//! The modules stand in the order in which the data flows; each uses only those above it.

pub mod epoch;
pub mod tally;
pub mod vitals;

pub mod metrics;

pub mod catalog;
pub mod decode;
pub mod relations;
pub mod route;
pub mod storage;
pub mod transaction;
pub mod visibility;
pub mod wal;

pub mod health;
pub mod progress;
pub mod retention;

pub mod capture;
pub mod heartbeat;
pub mod lease;
pub mod link;
pub mod webhook;

pub mod appender;
pub mod gate;
pub mod guard;
pub mod lookout;
pub mod pipeline;
pub mod polling;
pub mod primary;
pub mod proof;
pub mod upkeep;
pub mod warmth;
pub mod watch;

pub mod session;
pub mod standing;
pub mod tenant;

pub mod fleet;
pub mod orphans;

use std::path::Path;

use posduif_runtime::{
    admin,
    config::{Config, Reader, TenantConfig},
    lifecycle::Lifecycle,
    metrics::Metrics,
    readiness::Readiness,
    reload::Reload,
};

use crate::{
    fleet::{Fleet, Identity},
    lease::Lease,
    metrics::IngesterMetrics,
    orphans::Orphans,
    session::Session,
    webhook::Webhook,
};

/// Starts what follows the tenants of the configuration, which was read from the file at `path`, and the admin port; all ends
/// with the lifecycle.
///
/// # Errors
/// The admin port is taken, the webhook cannot be set up, or a metric is registered twice.
pub fn start(config: &Config, path: &Path, lifecycle: &Lifecycle) -> anyhow::Result<()> {
    let (readiness, metrics) = (Readiness::default(), Metrics::new()?);
    let counted = IngesterMetrics::register(&metrics)?;
    let rules = config.sync.rules()?;
    let webhook = Webhook::new(&config.webhook)?;
    let listener = admin::listen(config.admin.ingester_bind)?;
    let (reload, tenants) = Reload::new(path, Reader::Ingester, config)?;
    let shutdown = || lifecycle.shutdown_token();
    let orphans = Orphans {
        tenants: tenants.clone(),
        wal: config.sync.wal.clone(),
        retained: counted.orphan_slots.clone(),
    };
    lifecycle.spawn("orphan slots", orphans.watch(shutdown()));
    let refused = counted.configuration_refused.clone();
    lifecycle.spawn("configuration", reload.run(readiness.clone(), refused, shutdown()));
    let identity = Identity::new(listener.local_addr()?);
    let (settings, state, numbers) = (config.clone(), readiness.clone(), counted.clone());
    let session = Box::new(move |tenant: &TenantConfig, lease: Lease| Session {
        tenant: tenant.clone(),
        redis: settings.redis.clone(),
        wal: settings.sync.wal.clone(),
        retention: settings.sync.retention.clone(),
        rules: rules.clone(),
        webhook: webhook.clone(),
        metrics: numbers.clone(),
        readiness: state.clone(),
        lease,
    });
    let fleet = Fleet::new(tenants, identity, config.redis.clone(), session, counted, readiness.clone());
    lifecycle.spawn("tenants", fleet.run(shutdown()));
    let until = shutdown();
    lifecycle
        .spawn("admin port", async move { Ok(admin::serve(listener, readiness, metrics, until).await?) });
    Ok(())
}
