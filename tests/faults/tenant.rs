//! A schema in, a migrated tenant database with the configuration of a real ingester process out.

use std::time::{Duration, Instant};

use posduif_changelog::{
    Keys, LogReader, LogState, Timeouts,
    connect::{Connection, connect},
    pool,
};
use posduif_migrations::{Roles, migrate};
use posduif_model::{Lsn, TenantId, rule::RuleSet};
use posduif_provision::free_port;
use posduif_testkit::{API, Database, INGESTER, Process, Scratch, Servers, binaries, eventually};
use tokio_postgres::Client;

/// Long enough for a busy machine: waiting ends with the event, not with the time.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The tests read much at once, on a busy machine; how quick Redis is they do not judge.
const UNHURRIED: Timeouts = Timeouts { connect: PATIENCE, response: PATIENCE };

/// Where the ingester's connections go, and how it is set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Instead of the server's own ports: a proxy's.
    pub postgres_port: Option<u16>,
    pub redis_port: Option<u16>,
    pub confirm_delay: Option<Duration>,
    /// `sync.retention`; without it nothing is trimmed or compacted, and the raw log can be audited.
    pub retention: Option<&'static str>,
    pub transaction_cap_bytes: Option<u64>,
}

const KEEP_ALL: &str = "{compact_entries: 10000000, max_bytes: 1099511627776}";
const LARGEST_CAP: u64 = 1 << 30;

/// A tenant whose ingester is yet to be started.
pub struct Tenant {
    pub database: Database,
    pub log: LogReader,
    pub keys: Keys,
    redis_url: String,
    /// Its entry in a configuration, and the rest of that.
    entry: String,
    rest: String,
    scratch: Scratch,
}

/// Declarations in the form of `sync.tables`.
fn rules(tables: &str) -> RuleSet {
    let yaml = format!("{{tenants: [{{url: 'postgres://u@h/a'}}], sync: {{tables: {tables}}}}}");
    RuleSet::new(&posduif_runtime::config::Config::from_yaml(&yaml).unwrap().sync.tables).unwrap()
}

impl Tenant {
    /// Makes the database with `sql` in it and migrates it.
    pub async fn create(servers: &Servers, tables: &str, sql: &str, settings: &Settings) -> Self {
        let database = Database::create(servers).await;
        let mut client = database.connect().await;
        client.batch_execute(sql).await.unwrap();
        let roles = Some(Roles { api: API, ingester: INGESTER });
        migrate(&mut client, &rules(tables), "posduif", roles).await.unwrap();
        let through = |url: &str, own: u16, proxy: Option<u16>| match proxy {
            Some(proxy) => url.replace(&format!(":{own}/"), &format!(":{proxy}/")),
            None => url.to_owned(),
        };
        let url = through(database.ingester_url(), servers.postgres().port(), settings.postgres_port);
        let redis_url = servers.redis_url();
        let proxied = through(&servers.redis_url_of(INGESTER), servers.redis().port(), settings.redis_port);
        let delay = settings.confirm_delay.unwrap_or(Duration::from_secs(2)).as_millis();
        let retention = settings.retention.unwrap_or(KEEP_ALL);
        let cap = settings.transaction_cap_bytes.unwrap_or(LARGEST_CAP);
        let entry = format!("{{url: '{url}'}}");
        let rest = format!(
            "redis: {{url: '{proxied}'}}\nlog: {{format: text}}\nsync:\n  tables: {tables}\n  retention: {retention}\n  \
             wal: {{heartbeat_interval: 1s, confirm_delay: {delay}ms, transaction_cap_bytes: {cap}}}\n"
        );
        let scratch = Scratch::new();
        let id: TenantId = database.name().parse().unwrap();
        let log = LogReader::new(pool(redis_url.as_str(), 4, UNHURRIED).unwrap(), &id);
        let keys = Keys::new(&id);
        Tenant { database, log, keys, redis_url, entry, rest, scratch }
    }

    /// Starts an ingester; others may run already.
    pub async fn ingester(&self) -> Process {
        Tenant::ingester_of(&[self]).await.0
    }

    /// Starts an ingester for several tenants, which are set alike; gives its admin port as well.
    ///
    /// The port is its own for as long as it lives, so that one that is killed and started again takes its own place.
    pub async fn ingester_of(tenants: &[&Tenant]) -> (Process, u16) {
        let (first, port) = (tenants.first().unwrap(), free_port().unwrap());
        let entries: Vec<&str> = tenants.iter().map(|tenant| tenant.entry.as_str()).collect();
        let (entries, rest) = (entries.join(", "), &first.rest);
        let configuration = first.scratch.join(&format!("{port}.yaml"));
        let yaml = format!("tenants: [{entries}]\nadmin: {{ingester_bind: '127.0.0.1:{port}'}}\n{rest}");
        std::fs::write(&configuration, yaml).unwrap();
        let program = binaries::path("posduif-ingester").await;
        (Process::command(program).arg("--config").arg(&configuration).spawn(), port)
    }

    pub async fn redis(&self) -> Connection {
        connect(self.redis_url.as_str(), UNHURRIED).await.unwrap()
    }

    /// The state of the log, once there is one that serves snapshots.
    pub async fn ready(&self) -> LogState {
        eventually(PATIENCE, "the log is ready", async || {
            Ok(self.log.state().await?.filter(|state| state.unready_below.is_none()))
        })
        .await
    }

    /// Waits until the watermark passes `lsn`; gives the state then and how long it took.
    pub async fn reached(&self, lsn: Lsn) -> (LogState, Duration) {
        let begun = Instant::now();
        let state = eventually(PATIENCE, "the watermark moves on", async || {
            Ok(self.log.state().await?.filter(|state| state.watermark.end >= lsn))
        })
        .await;
        (state, begun.elapsed())
    }

    /// The walsender that holds the tenant's slot.
    pub async fn walsender(&self, client: &Client) -> Option<i32> {
        let sql = "SELECT active_pid FROM pg_replication_slots WHERE database = $1 AND active";
        client.query_opt(sql, &[&self.database.name()]).await.unwrap()?.get(0)
    }
}

/// Where the server writes its WAL now.
pub async fn insert_lsn(client: &Client) -> Lsn {
    lsn(client, "SELECT pg_current_wal_insert_lsn()::text").await
}

/// Up to where the server's WAL is on its disk.
pub async fn flush_lsn(client: &Client) -> Lsn {
    lsn(client, "SELECT pg_current_wal_flush_lsn()::text").await
}

async fn lsn(client: &Client, sql: &str) -> Lsn {
    client.query_one(sql, &[]).await.unwrap().get::<_, String>(0).parse().unwrap()
}
