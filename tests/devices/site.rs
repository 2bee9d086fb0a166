//! A tenant's declarations in, its database, ingester and API replicas as real processes out.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use posduif_changelog::{LogReader, LogState, Timeouts, pool};
use posduif_model::{Lsn, TenantId};
use posduif_provision::free_port;
use posduif_testkit::{API, Database, INGESTER, Process, Scratch, Servers, TOOL, binaries, eventually};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio_postgres::Client;

use crate::web::WebUser;

/// Long enough for a busy machine: waiting ends with the event, not with the time.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How quick Redis is the tests do not judge.
pub const UNHURRIED: Timeouts = Timeouts { connect: PATIENCE, response: PATIENCE };
const PASSWORD: &str = "correct horse battery staple";
const WEB_USER: &str = "Web";

/// How a site is set.
pub struct Settings {
    /// The application's own tables, made by the database's owner before the migration.
    pub sql: String,
    /// `sync.tables`.
    pub tables: Value,
    /// `sync.batch_size`: how much a device asks for at a time.
    pub batch_size: u32,
    /// `sync.retention`, where it is not the default.
    pub retention: Option<Value>,
    /// How many API processes, each at an address of its own, all at the same port.
    pub replicas: u8,
    /// `api.public_url`, where it is not the first replica's.
    pub public_url: Option<String>,
    /// `rate_limit`, where callers are limited; a proxy on this machine is believed then.
    pub limits: Option<Value>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            sql: String::new(),
            tables: json!([]),
            batch_size: 100,
            retention: None,
            replicas: 1,
            public_url: None,
            limits: None,
        }
    }
}

/// A migrated tenant with one web user, whose services run.
pub struct Site {
    pub database: Database,
    pub log: LogReader,
    pub web: WebUser,
    /// Of the first replica.
    pub api_url: String,
    pub port: u16,
    pub admin_port: u16,
    #[allow(dead_code, reason = "the tests of fail-overs kill it and ask it how it is")]
    pub ingester: Process,
    #[allow(dead_code, reason = "as above")]
    pub ingester_port: u16,
    pub replicas: Vec<Process>,
    pub scratch: Scratch,
}

/// Where a replica listens.
pub fn address(replica: u8) -> String {
    format!("127.0.0.{}", replica + 1)
}

impl Site {
    pub async fn start(servers: &Servers, settings: Settings) -> Self {
        let database = Database::create(servers).await;
        database.connect().await.batch_execute(&settings.sql).await.unwrap();
        let scratch = Scratch::new();
        let [port, admin_port, ingester_port] = std::array::from_fn(|_| free_port().unwrap());
        let api_url = format!("http://{}:{port}", address(0));
        let mut sync = json!({
            "tables": settings.tables,
            "batch_size": settings.batch_size,
            "wal": { "heartbeat_interval": "1s", "confirm_delay": "2s" },
        });
        if let Some(retention) = settings.retention {
            sync["retention"] = retention;
        }
        let trusted: &[&str] = if settings.limits.is_some() { &["127.0.0.1"] } else { &[] };
        let limits = settings.limits.unwrap_or(json!({ "enabled": false }));
        let configuration = |replica: u8| -> PathBuf {
            let (at, public) = (address(replica), settings.public_url.as_ref().unwrap_or(&api_url));
            let config = json!({
                "tenants": [database.tenant()],
                "redis": { "url": servers.redis_url_of(TOOL) },
                "api": { "bind": format!("{at}:{port}"), "public_url": public, "trusted_proxies": trusted },
                "admin": {
                    "api_bind": format!("{at}:{admin_port}"),
                    "ingester_bind": format!("127.0.0.1:{ingester_port}"),
                },
                "auth": { "jwt_secret": "0123456789abcdef0123456789abcdef" },
                "rate_limit": limits,
                "log": { "format": "text" },
                "sync": sync,
            });
            let path = scratch.join(&format!("{at}.yaml"));
            std::fs::write(&path, config.to_string()).unwrap();
            path
        };
        let first = configuration(0);
        let tool = binaries::path("posduif").await;
        let mut migrate = Process::command(&tool).args(["migrate", "--config"]).arg(&first).spawn();
        assert_eq!(migrate.wait(PATIENCE).await, Some(0), "{}", migrate.log());
        add_web_user(&tool, &first).await;
        let run = |program: &Path, file: PathBuf, user: &str| {
            let redis = servers.redis_url_of(user);
            Process::command(program).arg("--config").arg(file).env("POSDUIF__REDIS__URL", redis).spawn()
        };
        let ingester = run(&binaries::path("posduif-ingester").await, first, INGESTER);
        let program = binaries::path("posduif-sync-api").await;
        let replicas: Vec<Process> =
            (0..settings.replicas).map(|replica| run(&program, configuration(replica), API)).collect();
        ready("127.0.0.1", ingester_port, &ingester).await;
        for (replica, process) in (0..).zip(&replicas) {
            ready(&address(replica), admin_port, process).await;
        }
        let id: TenantId = database.name().parse().unwrap();
        let log = LogReader::new(pool(servers.redis_url().as_str(), 4, UNHURRIED).unwrap(), &id);
        let web = WebUser::log_in(&api_url, WEB_USER, PASSWORD).await;
        Site { database, log, web, api_url, port, admin_port, ingester, ingester_port, replicas, scratch }
    }

    /// Starts a replica again that has ended, and waits until it serves.
    pub async fn start_again(&mut self, replica: u8) {
        let process = &mut self.replicas[usize::from(replica)];
        process.start_again();
        ready(&address(replica), self.admin_port, process).await;
    }

    /// Waits until readers may see all that is committed now; gives the state of the log then.
    pub async fn settled(&self, client: &Client) -> LogState {
        let sql = "SELECT pg_current_wal_insert_lsn()::text";
        let now: Lsn = client.query_one(sql, &[]).await.unwrap().get::<_, String>(0).parse().unwrap();
        eventually(PATIENCE, "the watermark moves on", async || {
            Ok(self.log.state().await?.filter(|state| state.watermark.end >= now))
        })
        .await
    }
}

async fn ready(address: &str, port: u16, process: &Process) {
    let url = format!("http://{address}:{port}/readyz");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let begun = Instant::now();
    eventually(PATIENCE, "a service is ready", async || {
        let answer = client.get(&url).send().await?;
        if answer.status().is_success() {
            return Ok(Some(()));
        }
        let (state, log) = (answer.text().await?, process.log());
        Err(anyhow::anyhow!("{state}, after {:?}\n{log}", begun.elapsed()))
    })
    .await;
}

async fn add_web_user(tool: &Path, config: &Path) {
    let mut add = tokio::process::Command::new(tool)
        .args(["user", "add", "--username", WEB_USER, "--type", "web", "--password-stdin", "--config"])
        .arg(config)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    add.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).await.unwrap();
    assert!(add.wait().await.unwrap().success());
}
