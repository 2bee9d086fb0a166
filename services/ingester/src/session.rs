//! One tenant in, its log kept up to date for as long as every connection holds.

mod end;
mod promotion;
mod takeover;

pub use end::SessionError;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use posduif_changelog::{Batch, LogError, LogWriter};
use posduif_model::{Epoch, Lsn, rule::RuleSet};
use posduif_runtime::{
    config::{RedisConfig, RetentionConfig, TenantConfig, WalConfig},
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
    catalog::{Catalog, check_rights},
    gate::{Gate, Stored},
    guard::{APPLICATION, Guard},
    health::{self, Health},
    heartbeat,
    link::{self, Link, Surroundings},
    lookout::Lookout,
    metrics::IngesterMetrics,
    pipeline::{Limits, Pipeline},
    primary,
    progress::Progress,
    proof::Prover,
    transaction::Assembler,
    upkeep::Upkeep,
    wal::{self, Feedback, ReplicationConnection},
    watch::Watch,
    webhook::{Owned, Webhook},
};

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
        primary::check(&sql).await?;
        Catalog::load(&sql, &self.rules, &self.wal.publication).await?;
        check_rights(&sql).await?;
        // Should the ordinary connection end meanwhile, so does the attempt.
        let taken = tokio::select! {
            taken = takeover::take_over(self, &sql) => taken?,
            ended = parts.join_next() => return Err(end::reason(ended, &mut parts).await),
        };

        let epoch = taken.state.epoch;
        let vitals = self.metrics.vitals(&self.tenant.id);
        let (clock, beat) = heartbeat::age(&sql, taken.state.heartbeat).await?;
        vitals.clock(clock, Instant::now());
        vitals.took_over(taken.state.watermark.end, beat, taken.state.unready_below.is_some());
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
        let tenant = self.tenant.id.to_string();
        let watch = Watch {
            slot: taken.guard.slot.clone(),
            vitals: Arc::clone(&vitals),
            readiness: self.readiness.clone(),
            component: health::slot_component(&tenant),
        };
        parts.spawn(keep_watch(
            Arc::clone(&watching),
            taken.guard,
            taken.lookout.clone(),
            watch,
            self.wal.heartbeat_interval,
            beats_in,
        ));

        let surroundings = self.surroundings();
        let mut gate_writer = self.writer(taken.token).await?;
        let waiting = unpublished(&mut gate_writer, &epoch, taken.state.watermark.commit).await?;
        let (published, published_in) = watch::channel(taken.state.watermark.end);
        let (proven, proven_in) = watch::channel(None);
        let owned = Owned {
            tenant: self.tenant.id.clone(),
            token: taken.token,
            published: published.subscribe(),
            metrics: self.metrics.clone(),
            vitals: Arc::clone(&vitals),
        };
        let gate = Gate {
            client: sql,
            link: Link::new(gate_writer, surroundings.clone()),
            epoch,
            watermark: taken.state.watermark,
            waiting,
            unready_below: taken.state.unready_below,
            progress: Progress::new(taken.confirmed, self.wal.confirm_delay, Instant::now()),
            published,
            proven: proven_in,
            confirmed,
            confirmed_heartbeat: beats,
            metrics: self.metrics.clone(),
            vitals: Arc::clone(&vitals),
            tenant: tenant.clone(),
            health: Health::new(self.readiness.clone(), tenant.clone(), 3 * self.wal.heartbeat_interval),
        };
        parts.spawn(async move { Ok(gate.run(stored_in).await?) });
        let prover = Prover {
            link: Link::new(self.writer(taken.token).await?, surroundings.clone()),
            epoch,
            replicas: self.redis.durable_replicas,
            published: published_in,
            proven,
            tenant: tenant.clone(),
            response_timeout: self.redis.response_timeout,
        };
        parts.spawn(async move { Ok(prover.run().await?) });
        let upkeep = Upkeep {
            link: Link::new(self.writer(taken.token).await?, surroundings.clone()),
            epoch,
            retention: self.retention.clone(),
            pressure: Arc::clone(&surroundings.pressure),
            readiness: self.readiness.clone(),
            metrics: self.metrics.clone(),
            tenant: tenant.clone(),
            shared_kept: 0,
        };
        parts.spawn(async move { Ok(upkeep.run().await?) });
        let pipeline = Pipeline {
            assembler: Assembler::new(
                self.rules.clone(),
                taken.catalog,
                taken.end,
                self.wal.transaction_cap_bytes,
            ),
            lookout: taken.lookout,
            client: watching,
            batch: Batch::new(taken.writer.keys().clone(), epoch),
            link: Link::new(taken.writer, surroundings),
            stored: taken.end.newest,
            limits: Limits { bytes: self.wal.chunk_bytes, transactions: self.wal.batch_size },
            gate: stored,
            metrics: self.metrics.clone(),
            tenant,
        };
        parts.spawn(async move { Ok(pipeline.run(events_in).await?) });
        // No part of the session: it ends with it, and ends none.
        let _webhook = self.webhook.as_ref().map(|webhook| webhook.follow(owned, &self.redis)).transpose()?;
        vitals.follows(true);
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
        Ok(LogWriter::claim(link::open(&self.redis).await?, &self.tenant.id, token).await?)
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

/// Beats and checks until something no longer holds.
async fn keep_watch(
    client: Arc<Client>,
    guard: Guard,
    lookout: Lookout,
    look: Watch,
    every: Duration,
    confirmed: watch::Receiver<i64>,
) -> Result<(), SessionError> {
    let mut timer = interval(every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let oldest = *confirmed.borrow();
        timeout(PATIENCE, heartbeat::beat(&client, oldest)).await.map_err(|_| SessionError::Silent)??;
        timeout(PATIENCE, guard.check(&client)).await.map_err(|_| SessionError::Silent)??;
        lookout.check(&client).await?;
        timeout(PATIENCE, look.look(&client)).await.map_err(|_| SessionError::Silent)??;
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
        let records = match writer.commits(epoch, after, Lsn::new(u64::MAX), COMMITS_AT_ONCE).await {
            Err(error @ LogError::Corrupt(_)) => {
                // Every session would find it; the next one opens an epoch.
                writer.give_up(epoch, &error.to_string()).await?;
                return Err(error.into());
            }
            records => records?,
        };
        let Some(last) = records.last() else {
            return Ok(waiting);
        };
        after = last.commit;
        waiting.extend(records.iter().map(|record| Stored::Commit {
            commit: record.commit,
            end: record.end,
            xid: record.xid,
            committed_at: record.committed_at,
            heartbeat: None,
            left_out: record.left_out,
        }));
    }
}
