//! A configuration for one tenant, and the programs that use it.

use std::{path::PathBuf, time::Duration};

use posduif_provision::free_port;
use posduif_testkit::{Database, INGESTER, Process, Scratch, Servers, TOOL, binaries, eventually};
use serde_json::Value;

pub const SOON: Duration = Duration::from_secs(30);

/// One tenant's database, not migrated yet, and its configuration file.
pub struct Installation {
    pub database: Database,
    /// Redis for the ingester; the configuration names it for the tool.
    ingester_redis: String,
    scratch: Scratch,
}

impl Installation {
    pub async fn start(servers: &Servers) -> Self {
        let database = Database::create(servers).await;
        let (scratch, port) = (Scratch::new(), free_port().unwrap());
        let yaml = format!(
            "tenants: [{}]\nredis: {{url: '{}', connect_timeout: 2s, response_timeout: 2s}}\n\
             admin: {{ingester_bind: '127.0.0.1:{port}'}}\nsync: {{wal: {{heartbeat_interval: 1s}}}}",
            database.tenant(),
            servers.redis_url_of(TOOL)
        );
        std::fs::write(scratch.join("config.yaml"), yaml).unwrap();
        Installation { database, ingester_redis: servers.redis_url_of(INGESTER), scratch }
    }

    fn config(&self) -> PathBuf {
        self.scratch.join("config.yaml")
    }

    /// From now on the tool logs in to Redis with a password.
    pub fn set_redis_password(&self, password: &str) {
        let yaml = std::fs::read_to_string(self.config()).unwrap();
        let (before, server) = yaml.split_once("redis://").unwrap();
        let (_, server) = server.split_once('@').unwrap();
        let yaml = format!("{before}redis://{TOOL}:{password}@{server}");
        std::fs::write(self.config(), yaml).unwrap();
    }

    /// Runs the operator's tool to its end: its exit code and what it printed.
    async fn run(&self, arguments: &[&str]) -> (i32, String) {
        let program = binaries::path("posduif").await;
        let mut process = Process::command(program)
            .arg("--config")
            .arg(self.config())
            .args(arguments.iter().copied())
            .spawn();
        let code = process.wait(2 * SOON).await.expect("posduif hangs");
        (code, process.log())
    }

    pub async fn migrate(&self) {
        let (code, log) = self.run(&["migrate"]).await;
        assert_eq!(code, 0, "{log}");
    }

    /// An ingester for the tenant.
    pub async fn ingester(&self) -> Process {
        let program = binaries::path("posduif-ingester").await;
        let ingester = Process::command(program)
            .arg("--config")
            .arg(self.config())
            .env("POSDUIF__REDIS__URL", &self.ingester_redis)
            .spawn();
        eventually(SOON, "the ingester has taken over", async || {
            Ok(ingester.log().contains("took the tenant over").then_some(()))
        })
        .await;
        ingester
    }

    /// `posduif status --json`.
    pub async fn status(&self) -> (i32, Value) {
        let (code, log) = self.run(&["status", "--json"]).await;
        (code, serde_json::from_str(&log).unwrap_or_else(|error| panic!("{error}: {log}")))
    }

    /// `posduif status` for people.
    pub async fn table(&self, arguments: &[&str]) -> (i32, String) {
        self.run(&[&["status"], arguments].concat()).await
    }

    /// Waits until the tenant is well and its first heartbeat is stored: then every part of a session runs.
    pub async fn well(&self) {
        eventually(SOON, "the tenant is well", async || {
            let (_, report) = self.status().await;
            let commits = report["tenants"][0]["log"]["commits"].as_u64();
            anyhow::ensure!(report["ok"] == true && commits > Some(0), "{report}");
            Ok(Some(()))
        })
        .await;
    }
}
