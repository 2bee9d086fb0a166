//! A writer of the log in, the same writer out after Redis was away: nothing that was decoded is given up meanwhile.

use std::{sync::Arc, time::Duration};

use posduif_changelog::{
    LogError, LogWriter, Timeouts,
    connect::{self, Connection},
};
use posduif_model::TenantId;
use posduif_runtime::{backoff::Backoff, config::RedisConfig, readiness::Readiness};
use tokio::{sync::Notify, time::sleep};

use crate::metrics::IngesterMetrics;

/// The name under which Redis stands in the readiness.
pub const COMPONENT: &str = "redis";

const SHORTEST: Duration = Duration::from_millis(100);
/// Short enough to go on within seconds of Redis's return.
const LONGEST: Duration = Duration::from_secs(2);

/// A connection to a tenant's log that outlives its socket.
///
/// The replication connection stays open while Redis is away: PostgreSQL is kept informed on a timer of its own, and what
/// it has sent waits here instead of being sent again.
#[derive(Debug)]
pub struct Link {
    pub writer: LogWriter,
    surroundings: Surroundings,
    backoff: Backoff,
    /// The last attempt failed.
    troubled: bool,
}

/// What all links of a session have in common.
#[derive(Clone, Debug)]
pub struct Surroundings {
    pub redis: RedisConfig,
    pub readiness: Readiness,
    pub metrics: IngesterMetrics,
    pub tenant: TenantId,
    /// Woken when Redis has no memory left.
    pub pressure: Arc<Notify>,
}

impl Link {
    pub fn new(writer: LogWriter, surroundings: Surroundings) -> Self {
        Link { writer, surroundings, backoff: Backoff::new(SHORTEST, LONGEST), troubled: false }
    }

    /// What an attempt gave, or `None` when it is worth another one, which Redis is ready for by then.
    ///
    /// Only for what changes nothing when it is done twice.
    ///
    /// # Errors
    /// Whatever waiting does not heal: `Fenced`, `Diverged`, `Forbidden`, `Corrupt`.
    pub async fn outcome<T>(&mut self, attempt: Result<T, LogError>) -> Result<Option<T>, LogError> {
        match attempt {
            Err(error) => self.wait_out(error).await.map(|()| None),
            Ok(done) => {
                self.succeeded();
                Ok(Some(done))
            }
        }
    }

    /// Waits until Redis can be asked again; gives an error back that waiting does not heal.
    pub async fn wait_out(&mut self, error: LogError) -> Result<(), LogError> {
        let Surroundings { readiness, metrics, tenant, pressure, .. } = &self.surroundings;
        let reconnects = match &error {
            LogError::Unavailable(_) => true,
            LogError::OutOfMemory(_) => {
                pressure.notify_one();
                false
            }
            _ => return Err(error),
        };
        readiness.not_ready(COMPONENT, error.to_string());
        metrics.retries.with_label_values(&[tenant.as_str()]).inc();
        if !std::mem::replace(&mut self.troubled, true) {
            tracing::warn!(%tenant, %error, "the log cannot be used; trying again until it can");
        }
        self.pause().await;
        match reconnects {
            true => self.reconnect().await,
            false => Ok(()),
        }
    }

    /// What was tried has succeeded: the next failure begins with a short pause.
    pub fn succeeded(&mut self) {
        self.backoff.reset();
        if std::mem::take(&mut self.troubled) {
            tracing::info!(tenant = %self.surroundings.tenant, "the log can be used again");
            self.surroundings.readiness.ready(COMPONENT);
        }
    }

    async fn pause(&mut self) {
        sleep(self.backoff.next_pause(rand::random())).await;
    }

    async fn reconnect(&mut self) -> Result<(), LogError> {
        loop {
            let connected = match open(&self.surroundings.redis).await {
                Ok(connection) => self.writer.reconnect(connection).await,
                Err(error) => Err(error),
            };
            let Err(error @ LogError::Unavailable(_)) = connected else { return connected };
            let Surroundings { metrics, tenant, .. } = &self.surroundings;
            metrics.retries.with_label_values(&[tenant.as_str()]).inc();
            tracing::debug!(%tenant, %error, "Redis is still away");
            self.pause().await;
        }
    }
}

/// A connection of its own to Redis.
pub async fn open(redis: &RedisConfig) -> Result<Connection, LogError> {
    let timeouts = Timeouts { connect: redis.connect_timeout, response: redis.response_timeout };
    connect::connect(redis.url.expose(), timeouts).await
}
