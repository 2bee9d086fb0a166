//! A tenant with its ingester, and eyes for what the log holds.

use std::time::Duration;

use posduif_changelog::{Entry, LogReader, LogState, Timeouts, pool, reader::Read};
use posduif_ingester::{lease::Lease, metrics::IngesterMetrics, session::Session};
use posduif_migrations::{Roles, migrate};
use posduif_model::{Bucket, Lsn, Op, TenantId, UserId};
use posduif_runtime::{
    config::{Config, Reader, TenantConfig},
    metrics::Metrics,
    readiness::Readiness,
};
use posduif_testkit::{API, Database, INGESTER, Servers, eventually};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

pub const SOON: Duration = Duration::from_secs(20);
/// The services' roles.
pub const ROLES: Option<Roles<'static>> = Some(Roles { api: API, ingester: INGESTER });

/// A migrated tenant database of its own, and the settings of an ingester for it.
pub struct Tenant {
    pub database: Database,
    pub client: Client,
    pub log: LogReader,
    pub session: Session,
    redis_url: String,
}

/// A running ingester; dropped, it dies as by SIGKILL: nothing is flushed, confirmed or said.
pub struct Running {
    task: JoinHandle<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    /// Waits for the session to end and returns why it did.
    pub async fn ended(mut self) -> String {
        let ended = tokio::time::timeout(SOON, &mut self.task).await;
        ended.expect("the ingester goes on although it should not").unwrap()
    }
}

impl Tenant {
    pub async fn create(servers: &Servers) -> Self {
        Self::with_tables(servers, "[]", "").await
    }

    /// A tenant with tables of its own, declared as in `sync.tables`.
    pub async fn with_tables(servers: &Servers, declared: &str, sql: &str) -> Self {
        let database = Database::create(servers).await;
        let mut client = database.connect().await;
        client.batch_execute(sql).await.unwrap();
        let yaml = format!(
            "{{tenants: [{}], redis: {{url: '{}'}}, sync: {{tables: {declared}}}}}",
            database.tenant(),
            servers.redis_url_of(INGESTER)
        );
        let mut config = Config::from_yaml_for(Reader::Ingester, &yaml).unwrap();
        config.sync.wal.heartbeat_interval = Duration::from_secs(1);
        config.sync.wal.confirm_delay = Duration::from_secs(1);
        config.sync.wal.read_interval = Duration::from_millis(200);
        let rules = config.sync.rules().unwrap();
        migrate(&mut client, &rules, &config.sync.wal.publication, ROLES).await.unwrap();
        let tenant: TenantConfig = config.tenants[0].clone();
        let redis = pool(servers.redis_url(), 4, Timeouts::default()).unwrap();
        let log = LogReader::new(redis, &tenant.id);
        let metrics = IngesterMetrics::register(&Metrics::new().unwrap()).unwrap();
        let readiness = Readiness::default();
        let session = Session {
            tenant,
            redis: config.redis,
            wal: config.sync.wal,
            retention: config.sync.retention,
            rules,
            webhook: None,
            metrics,
            readiness,
            lease: Lease::default(),
        };
        Tenant { database, client, log, session, redis_url: servers.redis_url() }
    }

    pub fn id(&self) -> &TenantId {
        &self.session.tenant.id
    }

    /// Starts an ingester and waits until changes flow.
    pub async fn ingest(&self) -> Running {
        let mut running = self.spawn();
        loop {
            if self.session.readiness.report().ready {
                return running;
            }
            if running.task.is_finished() {
                panic!("the ingester did not start: {}", (&mut running.task).await.unwrap());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts an ingester that may well not get far.
    pub fn spawn(&self) -> Running {
        let session = self.session.clone();
        session.readiness.not_ready(session.tenant.id.to_string(), "starting");
        let task = tokio::spawn(async move {
            loop {
                // Without an error it hands over to a session of the other source.
                if let Err(error) = session.run().await {
                    return format!("{:#}", anyhow::Error::new(error));
                }
            }
        });
        Running { task }
    }

    /// Starts an ingester once the slot is free, and waits until it ends.
    pub async fn ends_again(&self) -> String {
        self.slot_is_free().await;
        self.spawn().ended().await
    }

    /// Starts an ingester, again and again while the slot is still held by its predecessor.
    pub async fn ingest_again(&self) -> Running {
        self.slot_is_free().await;
        self.ingest().await
    }

    /// From now on nobody knows what changes while there is no slot.
    pub async fn forget_notes(&self) {
        self.client.batch_execute("DELETE FROM posduif_engine.capture").await.unwrap();
    }

    pub async fn slot_is_free(&self) {
        let active = "SELECT FROM pg_replication_slots WHERE database = current_database() AND active";
        eventually(SOON, "the slot is free", async || {
            Ok(self.client.query_opt(active, &[]).await?.is_none().then_some(()))
        })
        .await;
    }

    pub async fn state(&self) -> LogState {
        eventually(SOON, "the log exists", async || Ok(self.log.state().await?)).await
    }

    /// Waits until readers may see all that is committed now, and returns the state of the log then.
    pub async fn caught_up(&self) -> LogState {
        let row = self.client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap();
        let now: Lsn = row.get::<_, String>(0).parse().unwrap();
        eventually(SOON, "the watermark passes what is committed", async || {
            Ok(self.log.state().await?.filter(|state| state.watermark.end >= now))
        })
        .await
    }

    /// Everything of a bucket, begun again by another ingester as often as one ends meanwhile.
    pub async fn entries_or_end(&self, running: &mut Running, bucket: Bucket) -> Vec<Entry> {
        let buckets = [bucket];
        loop {
            tokio::select! {
                entries = self.entries(&buckets) => return entries,
                _ = &mut running.task => {}
            }
            *running = self.ingest_again().await;
        }
    }

    /// Everything that readers of these buckets may see.
    pub async fn entries(&self, buckets: &[Bucket]) -> Vec<Entry> {
        let state = self.caught_up().await;
        let upto = state.watermark.commit;
        match self.log.read(&state.epoch, buckets, state.base, upto, 1_000_000).await.unwrap() {
            Read::Page(page) => page.entries,
            other => panic!("the log cannot be read: {other:?}"),
        }
    }

    /// What the messages of a user say, in the order of the log.
    pub async fn contents(&self, user: UserId) -> Vec<String> {
        let entries = self.entries(&[Bucket::User(user)]).await;
        entries.iter().map(|entry| content(&entry.changes[0].row)).collect()
    }

    /// The operations of a bucket in short: what happened to which key.
    pub async fn operations(&self, bucket: Bucket) -> Vec<(Op, String)> {
        let entries = self.entries(&[bucket]).await;
        entries.into_iter().flat_map(|e| e.changes).map(|c| (c.op, c.key)).collect()
    }

    pub async fn user(&self, name: &str) -> UserId {
        let insert = "INSERT INTO users (username) VALUES ($1) RETURNING id";
        UserId::new(self.client.query_one(insert, &[&name]).await.unwrap().get(0))
    }

    pub async fn message(&self, from: UserId, to: UserId, content: &str) {
        let insert = "INSERT INTO messages (sender_id, recipient_id, content) VALUES ($1, $2, $3)";
        self.client.execute(insert, &[&from.uuid(), &to.uuid(), &content]).await.unwrap();
    }

    /// From now on the log is read and written at another server's Redis.
    pub fn use_redis(&mut self, servers: &Servers) {
        self.redis_url = servers.redis_url();
        self.session.redis.url = servers.redis_url_of(INGESTER).parse().unwrap();
        self.log = LogReader::new(pool(self.redis_url.clone(), 4, Timeouts::default()).unwrap(), self.id());
    }

    /// A connection to the tenant's Redis, to do harm with.
    pub async fn redis(&self) -> redis::aio::MultiplexedConnection {
        redis::Client::open(self.redis_url.as_str())
            .unwrap()
            .get_multiplexed_async_connection()
            .await
            .unwrap()
    }
}

/// What the row of a message says.
pub fn content(row: &str) -> String {
    serde_json::from_str::<serde_json::Value>(row).unwrap()["content"].as_str().unwrap().to_owned()
}
