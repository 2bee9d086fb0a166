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
pub mod watch;

pub mod session;
pub mod tenant;

use posduif_runtime::{admin, config::Config, lifecycle::Lifecycle, metrics::Metrics, readiness::Readiness};

use crate::{metrics::IngesterMetrics, session::Session, webhook::Webhook};

/// Starts one task per tenant and the admin port; they end with the lifecycle.
///
/// # Errors
/// The admin port is taken, the webhook cannot be set up, or a metric is registered twice.
pub fn start(config: &Config, lifecycle: &Lifecycle) -> anyhow::Result<()> {
    let (readiness, metrics) = (Readiness::default(), Metrics::new()?);
    let counted = IngesterMetrics::register(&metrics)?;
    let rules = config.sync.rules()?;
    let webhook = Webhook::new(&config.webhook)?;
    let listener = admin::listen(config.admin.ingester_bind)?;
    for tenant in &config.tenants {
        let session = Session {
            tenant: tenant.clone(),
            redis: config.redis.clone(),
            wal: config.sync.wal.clone(),
            retention: config.sync.retention.clone(),
            rules: rules.clone(),
            webhook: webhook.clone(),
            metrics: counted.clone(),
            readiness: readiness.clone(),
        };
        counted.vitals(&tenant.id);
        let serve = tenant::serve(session, lifecycle.shutdown_token());
        lifecycle.spawn(format!("tenant {}", tenant.id), serve);
    }
    let shutdown = lifecycle.shutdown_token();
    lifecycle
        .spawn("admin port", async move { Ok(admin::serve(listener, readiness, metrics, shutdown).await?) });
    Ok(())
}
