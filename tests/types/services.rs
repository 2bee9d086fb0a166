//! A database in, its ingester and API as real processes out.

use std::{path::Path, process::Stdio, time::Duration};

use posduif_provision::free_port;
use posduif_testkit::{API, Database, INGESTER, Process, Scratch, Servers, TOOL, binaries, eventually};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

pub const SOON: Duration = Duration::from_secs(120);
pub const PASSWORD: &str = "correct horse battery staple";
pub const WEB_USER: &str = "Web";

/// A migrated tenant with one web user.
pub struct Services {
    pub api_url: String,
    pub scratch: Scratch,
    _ingester: Process,
    _api: Process,
}

impl Services {
    /// Migrates the database and starts both services for these `sync.tables`.
    pub async fn start(database: &Database, tables: Value) -> Self {
        let (servers, scratch) = (Servers::shared().await, Scratch::new());
        let [api, api_admin, ingester_admin] = std::array::from_fn(|_| free_port().unwrap());
        let config = json!({
            "tenants": [database.tenant()],
            "redis": { "url": servers.redis_url_of(TOOL) },
            "api": { "bind": format!("127.0.0.1:{api}"), "public_url": format!("http://127.0.0.1:{api}") },
            "admin": {
                "api_bind": format!("127.0.0.1:{api_admin}"),
                "ingester_bind": format!("127.0.0.1:{ingester_admin}"),
            },
            "auth": { "jwt_secret": "0123456789abcdef0123456789abcdef" },
            "rate_limit": { "enabled": false },
            "sync": { "tables": tables, "wal": { "heartbeat_interval": "1s" } },
        });
        let path = scratch.join("config.yaml");
        std::fs::write(&path, config.to_string()).unwrap();
        let tool = binaries::path("posduif").await;
        let mut migrate = Process::command(&tool).args(["migrate", "--config"]).arg(&path).spawn();
        assert_eq!(migrate.wait(SOON).await, Some(0), "{}", migrate.log());
        add_web_user(&tool, &path).await;
        let run = |program, user| {
            let redis = servers.redis_url_of(user);
            Process::command(program).arg("--config").arg(&path).env("POSDUIF__REDIS__URL", redis).spawn()
        };
        let ingester = run(binaries::path("posduif-ingester").await, INGESTER);
        let api_process = run(binaries::path("posduif-sync-api").await, API);
        for (port, process) in [(ingester_admin, &ingester), (api_admin, &api_process)] {
            let url = format!("http://127.0.0.1:{port}/readyz");
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            eventually(SOON, "a service is ready", async || {
                let answer = client.get(&url).send().await?;
                if answer.status().is_success() {
                    return Ok(Some(()));
                }
                Err(std::io::Error::other(format!("{}\n{}", answer.text().await?, process.log())).into())
            })
            .await;
        }
        let api_url = format!("http://127.0.0.1:{api}");
        Services { api_url, scratch, _ingester: ingester, _api: api_process }
    }
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
