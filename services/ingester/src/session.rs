//! One tenant in, its log kept up to date for as long as every connection holds.

mod course;
mod end;
mod eviction;
mod follow;
mod poll;
mod promotion;
mod takeover;

pub use end::SessionError;

use std::{sync::Arc, time::Duration};

use posduif_changelog::LogWriter;
use posduif_model::{Source, rule::RuleSet};
use posduif_runtime::{
    config::{RedisConfig, RetentionConfig, TenantConfig, WalConfig},
    postgres::{self, PINNED_OPTIONS},
    readiness::Readiness,
};
use tokio::{sync::Notify, task::JoinSet, time::timeout};
use tokio_postgres::Client;

use crate::{
    guard::APPLICATION,
    lease::Lease,
    link::{self, Surroundings},
    metrics::IngesterMetrics,
    primary, standing,
    vitals::Vitals,
    wal::ReplicationConnection,
    warmth::Warmth,
    webhook::Webhook,
};

use course::Course;

/// What a session needs; it outlives sessions.
#[derive(Clone, Debug)]
pub struct Session {
    pub tenant: TenantConfig,
    pub redis: RedisConfig,
    pub wal: WalConfig,
    pub retention: RetentionConfig,
    pub rules: RuleSet,
    pub webhook: Option<Webhook>,
    pub metrics: IngesterMetrics,
    /// Where the tenant says whether it is ready, under its id.
    pub readiness: Readiness,
    /// Without it the session ends no other ingester's.
    pub lease: Lease,
}

/// The longest a question to PostgreSQL may take that should be answered at once.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// The server ends a walsender whose client is silent for this long; a successor need not wait longer.
const WAL_SENDER_TIMEOUT: &str = "-c wal_sender_timeout=15s";
/// Between two attempts to go to the other source.
const RETRY: Duration = Duration::from_secs(10);
/// Between two looks at something that takes others a moment.
const SHORTLY: Duration = Duration::from_millis(100);

impl Session {
    /// Works for the tenant, unless an operator wants it to be left alone: then it waits until that is over.
    ///
    /// # Errors
    /// It ends without one where the next session shall begin at once.
    pub async fn run(&self) -> Result<(), SessionError> {
        standing::obey(self, self.work()).await
    }

    /// Takes the tenant over and keeps its log up to date from whatever source is wanted and can be had.
    ///
    /// # Errors
    /// It ends without one only where the next session shall go on from the other source. Whatever part fails, all of
    /// them are dropped and their connections closed at once: a walsender whose client stayed would block a fast shutdown
    /// of PostgreSQL for ever.
    async fn work(&self) -> Result<(), SessionError> {
        let mut parts: JoinSet<Result<(), SessionError>> = JoinSet::new();
        let sql = self.sql(&mut parts).await?;
        primary::check(&sql).await?;
        standing::check(&sql, &self.tenant.id).await?;
        let course = tokio::select! {
            course = course::choose(self, &sql) => course?,
            ended = parts.join_next() => return Err(end::reason(ended, &mut parts).await),
        };
        match course {
            Course::Follow { leave } => follow::run(self, sql, parts, leave).await,
            Course::Poll { leave } => poll::run(self, sql, parts, leave).await,
        }
    }

    /// An ordinary connection whose end ends the session.
    async fn sql(&self, parts: &mut JoinSet<Result<(), SessionError>>) -> Result<Client, SessionError> {
        self.listening(parts, Arc::default()).await
    }

    /// The same, which says when a notification came.
    async fn listening(
        &self,
        parts: &mut JoinSet<Result<(), SessionError>>,
        heard: Arc<Notify>,
    ) -> Result<Client, SessionError> {
        let (client, driver) = postgres::connect(&self.tenant, APPLICATION).await?;
        parts.spawn(async move {
            standing::drive(driver, &heard).await?;
            Err(SessionError::Closed)
        });
        // With a synchronous standby missing, the ingester's own small writes must not wait for it.
        client.batch_execute("SET synchronous_commit = local").await?;
        Ok(client)
    }

    async fn replication(&self) -> Result<ReplicationConnection, SessionError> {
        let tls = postgres::make_tls(&self.tenant)?;
        let config = postgres::tokio_postgres_config(&self.tenant);
        let options = format!("{PINNED_OPTIONS} {WAL_SENDER_TIMEOUT}");
        let open = ReplicationConnection::open(&config, tls, APPLICATION, &options);
        timeout(PATIENCE, open).await.map_err(|_| SessionError::Silent)?.map_err(SessionError::from)
    }

    async fn writer(&self, token: i64) -> Result<LogWriter, SessionError> {
        Ok(LogWriter::claim(link::open(&self.redis).await?, &self.tenant.id, token).await?)
    }

    /// Who looks whether the tenant is worth a slot; `None` where it is to have the source that it has.
    fn warmth(&self, vitals: &Arc<Vitals>) -> Option<Warmth> {
        let is_variable = self.tenant.source(&self.wal) == Source::Wal && !self.wal.cold_after.is_zero();
        is_variable.then(|| Warmth {
            tenant: self.tenant.id.clone(),
            redis: self.redis.clone(),
            vitals: Arc::clone(vitals),
            cold_after: self.wal.cold_after,
        })
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            redis: self.redis.clone(),
            readiness: self.readiness.clone(),
            metrics: self.metrics.clone(),
            tenant: self.tenant.id.clone(),
            pressure: Arc::new(Notify::new()),
        }
    }
}
