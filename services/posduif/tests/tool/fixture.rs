//! A configuration for one tenant, and the programs that use it.

use std::{path::PathBuf, time::Duration};

use posduif_provision::free_port;
use posduif_testkit::{API, Database, INGESTER, Process, Scratch, Servers, TOOL, binaries, eventually};
use serde_json::Value;

pub const SOON: Duration = Duration::from_secs(30);
const SECRET: &str = "a secret of the tests that has more than 32 bytes";

/// One tenant's database, not migrated yet, and its configuration file.
pub struct Installation {
    pub database: Database,
    /// Where its API is.
    pub base: String,
    /// Redis for the services; the configuration names it for the tool.
    api_redis: String,
    ingester_redis: String,
    scratch: Scratch,
}

impl Installation {
    pub async fn start(servers: &Servers) -> Self {
        let database = Database::create(servers).await;
        let (scratch, port, api) = (Scratch::new(), free_port().unwrap(), free_port().unwrap());
        let (bind, api_admin) = (format!("127.0.0.1:{api}"), free_port().unwrap());
        let base = format!("http://{bind}");
        let yaml = format!(
            "tenants: [{}]\nredis: {{url: '{}', connect_timeout: 2s, response_timeout: 2s}}\n\
             admin: {{ingester_bind: '127.0.0.1:{port}', api_bind: '127.0.0.1:{api_admin}'}}\n\
             api: {{bind: '{bind}', public_url: '{base}'}}\nauth: {{jwt_secret: '{SECRET}'}}\n\
             rate_limit: {{enabled: false}}\nsync: {{wal: {{heartbeat_interval: 1s}}}}",
            database.tenant(),
            servers.redis_url_of(TOOL)
        );
        std::fs::write(scratch.join("config.yaml"), yaml).unwrap();
        let [api_redis, ingester_redis] = [API, INGESTER].map(|user| servers.redis_url_of(user));
        Installation { database, base, api_redis, ingester_redis, scratch }
    }

    fn config(&self) -> PathBuf {
        self.scratch.join("config.yaml")
    }

    /// From now on there is a second tenant.
    pub fn add_tenant(&self, url: &str) {
        let yaml = std::fs::read_to_string(self.config()).unwrap();
        std::fs::write(self.config(), yaml.replacen("}]", &format!("}}, {{url: '{url}'}}]"), 1)).unwrap();
    }

    /// From now on further tenants are kept in this file, which the tool makes.
    pub fn keep_tenants_in_a_file(&self) -> PathBuf {
        let file = self.scratch.join("tenants.yaml");
        let yaml = std::fs::read_to_string(self.config()).unwrap();
        std::fs::write(self.config(), format!("tenants_file: '{}'\n{yaml}", file.display())).unwrap();
        file
    }

    /// A process of the tool that reads this as its standard input.
    pub async fn tool(&self, arguments: &[&str], input: &str) -> Process {
        let file = self.scratch.join(&format!("input-{}", uuid::Uuid::new_v4().simple()));
        std::fs::write(&file, input).unwrap();
        let script = "posduif=$1; input=$2; shift 2; exec \"$posduif\" \"$@\" < \"$input\"";
        Process::command("sh")
            .args(["-c", script, "sh"])
            .arg(binaries::path("posduif").await)
            .arg(file)
            .arg("--config")
            .arg(self.config())
            .args(arguments.iter().copied())
            .spawn()
    }

    /// From now on the tool logs in to Redis with this password.
    pub fn set_redis_password(&self, password: &str) {
        let yaml = std::fs::read_to_string(self.config()).unwrap();
        let (before, server) = yaml.split_once("redis://").unwrap();
        let (_, server) = server.split_once('@').unwrap();
        std::fs::write(self.config(), format!("{before}redis://{TOOL}:{password}@{server}")).unwrap();
    }

    /// Runs the operator's tool to its end: its exit code and what it printed.
    pub async fn run(&self, arguments: &[&str]) -> (i32, String) {
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

    /// The same, which must succeed; what it printed.
    pub async fn ok(&self, arguments: &[&str]) -> String {
        let (code, log) = self.run(arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {log}");
        log
    }

    /// The same, which must be refused, with these words.
    pub async fn refused(&self, arguments: &[&str], words: &str) {
        let (code, log) = self.run(arguments).await;
        assert!(code != 0 && log.contains(words), "{arguments:?}: {code} {log}");
    }

    /// What it printed as JSON.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        let log = self.ok(arguments).await;
        serde_json::from_str(&log).unwrap_or_else(|error| panic!("{error}: {log}"))
    }

    /// Adds a web user, or changes one; the tool reads the password from a file as its standard input.
    pub async fn web_user(&self, username: &str, password: &str, more: &[&str]) -> String {
        std::fs::write(self.scratch.join("password"), password).unwrap();
        let script = "posduif=$1; input=$2; shift 2; exec \"$posduif\" \"$@\" < \"$input\"";
        let mut process = Process::command("sh")
            .args(["-c", script, "sh"])
            .arg(binaries::path("posduif").await)
            .arg(self.scratch.join("password"))
            .arg("--config")
            .arg(self.config())
            .args(["user", "add", "--type", "web", "--password-stdin", "--username", username])
            .args(more.iter().copied())
            .spawn();
        assert_eq!(process.wait(2 * SOON).await, Some(0), "{}", process.log());
        process.log()
    }

    /// An API for the tenant.
    pub async fn api(&self) -> Process {
        let program = binaries::path("posduif-sync-api").await;
        let api = Process::command(program)
            .arg("--config")
            .arg(self.config())
            .env("POSDUIF__REDIS__URL", &self.api_redis)
            .spawn();
        eventually(SOON, "the API answers", async || {
            Ok(reqwest::get(format!("{}/health", self.base)).await?.status().is_success().then_some(()))
        })
        .await;
        api
    }

    /// A file for a phone's database.
    pub fn phone(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
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
