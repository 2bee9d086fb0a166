//! The first test of a process in, one PostgreSQL and one Redis for all its tests out.

use std::time::Duration;

use posduif_provision::{Postgres, PostgresOptions, Redis, RedisOptions};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::scratch::Scratch;

/// The role that the services under test log in as: it may replicate and owns its databases, nothing more.
pub(crate) const ROLE: &str = "posduif";
const PASSWORD: &str = "secret";

/// One PostgreSQL and one Redis. They never outlive the test process, however it ends.
pub struct Servers {
    postgres: Postgres,
    redis: Redis,
    _scratch: Scratch,
}

impl Servers {
    /// The servers, started by whichever test asks first.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Servers> = OnceCell::const_new();
        SHARED.get_or_init(Self::private).await
    }

    /// Servers for one test alone, which may stop and restart them. They end when this value is dropped.
    pub async fn private() -> Self {
        Self::start(false).await
    }

    /// [`Servers::private`] whose PostgreSQL waits for its disk, so that crashes of it are those of a real one.
    pub async fn durable() -> Self {
        Self::start(true).await
    }

    async fn start(durable: bool) -> Self {
        let scratch = Scratch::new();
        let mut postgres = PostgresOptions::new(scratch.join("postgres"), PASSWORD);
        postgres.durable = durable;
        postgres.settings.push(("max_prepared_transactions".to_owned(), "8".to_owned()));
        let mut redis = RedisOptions::new(scratch.join("redis"));
        redis.settings.push(("enable-debug-command".to_owned(), "local".to_owned()));
        let (postgres, redis) = tokio::join!(Postgres::start(postgres), Redis::start(redis));
        let servers = Self {
            postgres: postgres.unwrap_or_else(|error| panic!("{error}")),
            redis: redis.unwrap_or_else(|error| panic!("{error}")),
            _scratch: scratch,
        };
        let sql = format!("CREATE ROLE {ROLE} LOGIN REPLICATION PASSWORD '{PASSWORD}'");
        servers.admin().await.batch_execute(&sql).await.expect("making the services' role");
        servers
    }

    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// To break PostgreSQL of [`Servers::private`].
    pub fn postgres_mut(&mut self) -> &mut Postgres {
        &mut self.postgres
    }

    /// To break Redis of [`Servers::private`].
    pub fn redis_mut(&mut self) -> &mut Redis {
        &mut self.redis
    }

    /// The address of Redis. Tests share it: give every test a tenant, and so a key prefix, of its own.
    pub fn redis_url(&self) -> String {
        self.redis.url()
    }

    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// The superuser's address of a database.
    pub fn admin_url(&self, database: &str) -> String {
        self.postgres.url(database)
    }

    /// The address of a database for the services' role.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{ROLE}:{PASSWORD}@127.0.0.1:{}/{database}", self.postgres.port())
    }

    /// A superuser's session in the database `postgres`.
    pub async fn admin(&self) -> Client {
        connect(&self.admin_url("postgres")).await
    }
}

/// Opens a session; its connection runs as a task of the calling test and ends with the client.
pub(crate) async fn connect(url: &str) -> Client {
    let connecting = tokio::time::timeout(Duration::from_secs(20), tokio_postgres::connect(url, NoTls));
    let (client, connection) = connecting.await.expect("connecting in time").expect("connecting");
    // The client reports what ends the connection; faults are what tests are about.
    tokio::spawn(async move { connection.await.ok() });
    client
}
