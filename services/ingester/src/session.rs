//! One tenant in, its log kept up to date for as long as every connection holds.

mod end;
mod takeover;

pub use end::SessionError;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use posduif_changelog::{
    Batch, LogWriter, Timeouts,
    connect::{self, Connection},
    durability,
};
use posduif_model::{Epoch, Lsn, rule::RuleSet};
use posduif_runtime::{
    config::{RedisConfig, TenantConfig, WalConfig},
    postgres::{self, PINNED_OPTIONS},
    readiness::Readiness,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_postgres::Client;

use crate::{
    catalog::Catalog,
    gate::{Gate, Stored},
    guard::{APPLICATION, Guard},
    health::Health,
    heartbeat,
    lookout::Lookout,
    metrics::IngesterMetrics,
    pipeline::{Limits, Pipeline},
    progress::Progress,
    transaction::Assembler,
    wal::{self, Feedback, ReplicationConnection},
};

/// What a session needs; it outlives sessions.
#[derive(Clone, Debug)]
pub struct Session {
    pub tenant: TenantConfig,
    pub redis: RedisConfig,
    pub wal: WalConfig,
    pub rules: RuleSet,
    pub metrics: IngesterMetrics,
    /// Where the tenant says whether it is ready, under its id.
    pub readiness: Readiness,
}

/// Messages that may wait between the parts; payload bytes have a budget of their own.
const QUEUE: usize = 4_096;
/// The longest a question to PostgreSQL may take that should be answered at once.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// The server ends a walsender whose client is silent for this long; a successor need not wait longer.
const WAL_SENDER_TIMEOUT: &str = "-c wal_sender_timeout=15s";
/// Commits read at once when a predecessor left some unpublished.
const COMMITS_AT_ONCE: usize = 1_000;

impl Session {
    /// Takes the tenant over and follows its WAL; says that it is ready once changes flow.
    ///
    /// # Errors
    /// It ends only with an error. Whatever part fails, all of them are dropped and their connections closed at
    /// once: a walsender whose client stayed would block a fast shutdown of PostgreSQL for ever.
    pub async fn run(&self) -> Result<(), SessionError> {
        let mut parts: JoinSet<Result<(), SessionError>> = JoinSet::new();
        let sql = self.sql(&mut parts).await?;
        // Before anything is made for it on the server.
        Catalog::load(&sql, &self.rules, &self.wal.publication).await?;
        // Should the ordinary connection end meanwhile, so does the attempt.
        let taken = tokio::select! {
            taken = takeover::take_over(self, &sql) => taken?,
            ended = parts.join_next() => return Err(end::reason(ended, &mut parts).await),
        };

        let epoch = taken.state.epoch;
        let (events, events_in) = mpsc::channel(QUEUE);
        let (stored, stored_in) = mpsc::channel(QUEUE);
        let (confirmed, confirmed_in) = watch::channel(taken.confirmed);
        let (beats, beats_in) = watch::channel(0);
        let answer_now = Arc::new(Notify::new());

        let (reader, writer) = taken.halves;
        let feedback = Feedback {
            confirmed: confirmed_in,
            answer_now: Arc::clone(&answer_now),
            every: self.wal.status_interval.min(self.wal.read_interval),
        };
        parts.spawn(async move { Ok(wal::receive(reader, events, answer_now).await?) });
        parts.spawn(async move { Ok(wal::report(writer, feedback).await?) });
        let watching = Arc::new(self.sql(&mut parts).await?);
        let watch =
            Watch { client: Arc::clone(&watching), guard: taken.guard, lookout: taken.lookout.clone() };
        parts.spawn(keep_watch(watch, self.wal.heartbeat_interval, beats_in));

        let tenant = self.tenant.id.to_string();
        let mut gate_writer = self.writer(taken.token).await?;
        let waiting = unpublished(&mut gate_writer, &epoch, taken.state.watermark.commit).await?;
        let gate = Gate {
            client: sql,
            writer: gate_writer,
            epoch,
            watermark: taken.state.watermark,
            waiting,
            unready_below: taken.state.unready_below,
            progress: Progress::new(taken.confirmed, self.wal.confirm_delay, Instant::now()),
            confirmed,
            confirmed_heartbeat: beats,
            metrics: self.metrics.clone(),
            tenant: tenant.clone(),
            health: Health::new(self.readiness.clone(), tenant.clone(), 3 * self.wal.heartbeat_interval),
        };
        parts.spawn(async move { Ok(gate.run(stored_in).await?) });
        let pipeline = Pipeline {
            assembler: Assembler::new(self.rules.clone(), taken.catalog, taken.newest),
            lookout: taken.lookout,
            client: watching,
            batch: Batch::new(taken.writer.keys().clone(), epoch),
            writer: taken.writer,
            stored: taken.newest,
            limits: Limits { bytes: self.wal.chunk_bytes, transactions: self.wal.batch_size },
            gate: stored,
            metrics: self.metrics.clone(),
            tenant,
        };
        parts.spawn(async move { Ok(pipeline.run(events_in).await?) });
        self.look_at_redis().await?;
        self.readiness.ready(self.tenant.id.to_string());
        let ended = parts.join_next().await;
        Err(end::reason(ended, &mut parts).await)
    }

    /// An ordinary connection whose end ends the session.
    async fn sql(&self, parts: &mut JoinSet<Result<(), SessionError>>) -> Result<Client, SessionError> {
        let (client, driver) = postgres::connect(&self.tenant, APPLICATION).await?;
        parts.spawn(async move {
            driver.await?;
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
        Ok(LogWriter::claim(self.redis().await?, &self.tenant.id, token).await?)
    }

    async fn redis(&self) -> Result<Connection, SessionError> {
        let RedisConfig { connect_timeout: connect, response_timeout: response, .. } = self.redis;
        Ok(connect::connect(self.redis.url.expose(), Timeouts { connect, response }).await?)
    }

    /// Says in the readiness, under `redis`, what puts the log at risk.
    async fn look_at_redis(&self) -> Result<(), SessionError> {
        let concerns = durability::concerns(&mut self.redis().await?).await?;
        match concerns.is_empty() {
            true => self.readiness.ready("redis"),
            false => self.readiness.degraded("redis", concerns.join("; ")),
        }
        Ok(())
    }
}

/// What is looked at with every heartbeat.
struct Watch {
    client: Arc<Client>,
    guard: Guard,
    lookout: Lookout,
}

/// Beats and checks until something no longer holds.
async fn keep_watch(
    watch: Watch,
    every: Duration,
    confirmed: watch::Receiver<i64>,
) -> Result<(), SessionError> {
    let Watch { client, guard, lookout } = watch;
    let mut timer = interval(every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let oldest = *confirmed.borrow();
        timeout(PATIENCE, heartbeat::beat(&client, oldest)).await.map_err(|_| SessionError::Silent)??;
        timeout(PATIENCE, guard.check(&client)).await.map_err(|_| SessionError::Silent)??;
        lookout.check(&client).await?;
    }
}

/// The commits that an earlier session stored and did not publish, oldest first.
async fn unpublished(
    writer: &mut LogWriter,
    epoch: &Epoch,
    mut after: Lsn,
) -> Result<VecDeque<Stored>, SessionError> {
    let mut waiting = VecDeque::new();
    loop {
        let records = writer.commits_after(epoch, after, COMMITS_AT_ONCE).await?;
        let Some(last) = records.last() else {
            return Ok(waiting);
        };
        after = last.commit;
        waiting.extend(records.iter().map(|record| Stored::Commit {
            commit: record.commit,
            end: record.end,
            xid: record.xid,
            heartbeat: None,
        }));
    }
}
