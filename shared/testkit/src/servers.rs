//! The first test of a process in, one PostgreSQL and one Redis for all its tests out.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use posduif_provision::{
    Postgres, PostgresOptions, Redis, RedisOptions, RedisUsers,
    shipped::{self, ADMIN, API, INGESTER, TOOL},
};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::chaos::Proxy;
use crate::scratch::Scratch;

/// The user of Redis that tests are themselves, to look at everything and to do harm.
const TESTER: &str = "tester";

/// Every user's own, so that none gets in with another's.
fn password(user: &str) -> String {
    format!("secret-of-{user}")
}

/// The shipped users, and the tests' own.
fn redis_users() -> RedisUsers {
    let rules = format!("{}\nuser {TESTER} on #<{TESTER}> ~* &* +@all\n", shipped::USERS_ACL);
    let with_password = |name: &str| (name.to_owned(), password(name).into());
    let passwords = [INGESTER, API, TOOL, TESTER].map(with_password).into();
    RedisUsers { rules, passwords, observer: TESTER.to_owned() }
}

/// One PostgreSQL and one Redis. They never outlive the test process, however it ends.
pub struct Servers {
    postgres: Postgres,
    redis: Redis,
    /// Where PostgreSQL is reached, if not at its own port.
    address: Option<Proxy>,
    pub(crate) scratch: Scratch,
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

    /// [`Servers::private`] whose PostgreSQL is reached at one address, also once another server has taken its place.
    pub async fn movable() -> Self {
        let mut servers = Self::start(false).await;
        servers.address = Some(Proxy::start(at(&servers.postgres)).await);
        servers
    }

    /// Puts another server in the place of PostgreSQL; gives the former one, which may run on. Connections that are open stay
    /// with it.
    pub fn move_to(&mut self, postgres: Postgres) -> Postgres {
        self.address().point_to(at(&postgres));
        std::mem::replace(&mut self.postgres, postgres)
    }

    /// The address of [`Servers::movable`]. A fail-over cuts its connections, or leaves some to the former server.
    pub fn address(&self) -> &Proxy {
        self.address.as_ref().expect("these servers have no address that moves")
    }

    /// What every PostgreSQL of the tests is set to.
    pub(crate) fn options(scratch: &Scratch, name: &str) -> PostgresOptions {
        let mut options = PostgresOptions::new(scratch.join(name), password("postgres"));
        options.settings.push(("max_prepared_transactions".to_owned(), "8".to_owned()));
        options
    }

    async fn start(durable: bool) -> Self {
        let scratch = Scratch::new();
        let mut postgres = Self::options(&scratch, "postgres");
        postgres.durable = durable;
        let mut redis = RedisOptions::new(scratch.join("redis"));
        redis.users = Some(redis_users());
        redis.settings.push(("enable-debug-command".to_owned(), "local".to_owned()));
        let (postgres, redis) = tokio::join!(Postgres::start(postgres), Redis::start(redis));
        let servers = Self {
            postgres: postgres.unwrap_or_else(|error| panic!("{error}")),
            redis: redis.unwrap_or_else(|error| panic!("{error}")),
            address: None,
            scratch,
        };
        servers.make_roles().await;
        servers
    }

    /// Runs the script that operators run.
    async fn make_roles(&self) {
        let superuser = self.superuser().await;
        for (setting, role) in [
            ("posduif.admin_password", ADMIN),
            ("posduif.ingester_password", INGESTER),
            ("posduif.api_password", API),
        ] {
            let set = "SELECT set_config($1, $2, false)";
            superuser.execute(set, &[&setting, &password(role)]).await.expect("setting a password");
        }
        superuser.batch_execute(shipped::ROLES_SQL).await.expect("making the roles");
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

    /// The address of Redis for tests themselves, who may do anything; services have users of their own. Tests share it:
    /// give every test a tenant, and so a key prefix, of its own.
    pub fn redis_url(&self) -> String {
        self.redis.url()
    }

    /// The address of Redis for one of the shipped users.
    pub fn redis_url_of(&self, user: &str) -> String {
        self.redis.url_of(user)
    }

    /// [`Servers::redis_url_of`] through a proxy that listens there.
    pub fn redis_url_at(&self, user: &str, proxy: SocketAddr) -> String {
        self.redis.url_of(user).replace(&format!("127.0.0.1:{}", self.redis.port()), &proxy.to_string())
    }

    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// The address of a database for the API.
    pub fn url(&self, database: &str) -> String {
        self.url_of(API, database)
    }

    /// The address of a database for the ingester.
    pub fn ingester_url(&self, database: &str) -> String {
        self.url_of(INGESTER, database)
    }

    /// The address of a database for its owner, who migrates; no superuser.
    pub fn admin_url(&self, database: &str) -> String {
        self.url_of(ADMIN, database)
    }

    /// The superuser's address of a database: for what a test does to the server, and nothing that Posduif does.
    pub fn superuser_url(&self, database: &str) -> String {
        let own = format!("@127.0.0.1:{}/", self.postgres.port());
        self.postgres.url(database).replace(&own, &format!("@127.0.0.1:{}/", self.port()))
    }

    fn url_of(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}:{}@127.0.0.1:{}/{database}", password(role), self.port())
    }

    /// Where clients find PostgreSQL.
    fn port(&self) -> u16 {
        self.address.as_ref().map_or(self.postgres.port(), |address| address.address().port())
    }

    /// A superuser's session in the database `postgres`.
    pub async fn superuser(&self) -> Client {
        connect(&self.superuser_url("postgres")).await
    }
}

/// A superuser's session at one server, whatever is reached at the address of [`Servers`].
pub async fn session(postgres: &Postgres, database: &str) -> Client {
    connect(&postgres.url(database)).await
}

/// Where a server listens.
pub(crate) fn at(postgres: &Postgres) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, postgres.port()).into()
}

/// Opens a session; its connection runs as a task of the calling test and ends with the client.
pub(crate) async fn connect(url: &str) -> Client {
    let connecting = tokio::time::timeout(Duration::from_secs(20), tokio_postgres::connect(url, NoTls));
    let (client, connection) = connecting.await.expect("connecting in time").expect("connecting");
    // The client reports what ends the connection; faults are what tests are about.
    tokio::spawn(async move { connection.await.ok() });
    client
}
