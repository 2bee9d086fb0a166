//! A tenant in, its ingester as a real process with an admin port out.

use std::{collections::BTreeSet, time::Duration};

use posduif_provision::free_port;
use posduif_testkit::{Process, Scratch, binaries, eventually};

use crate::{
    exposition::{Scrape, parse},
    fixture::{SOON, Tenant},
};

/// `posduif-ingester`, mostly for one tenant.
pub struct Ingester {
    pub process: Process,
    /// Its configuration's file.
    pub config: std::path::PathBuf,
    port: u16,
    _scratch: Scratch,
}

impl Ingester {
    /// Starts it with the addresses given, whatever the tenant's own are.
    pub async fn start_with(postgres: &str, redis: &str, tables: &str, level: &str) -> Self {
        Self::start_also(postgres, redis, tables, level, "").await
    }

    /// The same, with further sections of the configuration; waits until it works for the tenant, which may be when the lease of
    /// a killed predecessor has ended.
    pub async fn start_also(postgres: &str, redis: &str, tables: &str, level: &str, also: &str) -> Self {
        let entry = format!("{{url: '{postgres}'}}");
        let ingester = Self::spawn(&[entry], redis, tables, level, also).await;
        ingester.works_for(1).await;
        ingester
    }

    /// Starts it for these tenants, entries of a configuration, and waits for nothing.
    pub async fn spawn(tenants: &[String], redis: &str, tables: &str, level: &str, also: &str) -> Self {
        let (scratch, port) = (Scratch::new(), free_port().unwrap());
        let file = scratch.join("config.yaml");
        let yaml = format!(
            "tenants: [{}]\nredis: {{url: '{redis}', connect_timeout: 500ms, response_timeout: 500ms}}\n\
             admin: {{ingester_bind: '127.0.0.1:{port}'}}\nlog: {{level: {level}}}\n\
             sync: {{tables: {tables}, wal: {{heartbeat_interval: 500ms, confirm_delay: 0s, read_interval: 200ms}}}}\n{also}",
            tenants.join(", ")
        );
        std::fs::write(&file, yaml).unwrap();
        let program = binaries::path("posduif-ingester").await;
        let process = Process::command(program).arg("--config").arg(&file).spawn();
        Ingester { process, config: file, port, _scratch: scratch }
    }

    pub async fn start(tenant: &Tenant) -> Self {
        let redis = tenant.session.redis.url.expose().to_owned();
        Self::start_with(tenant.database.ingester_url(), &redis, "[]", "info").await
    }

    /// Its webhook is this section.
    pub async fn start_calling(tenant: &Tenant, webhook: &str) -> Self {
        let redis = tenant.session.redis.url.expose().to_owned();
        Self::start_also(tenant.database.ingester_url(), &redis, "[]", "debug", webhook).await
    }

    /// As which the others know it.
    pub fn name(&self) -> String {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        format!("{}:{}", host.trim(), self.port)
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        Ok(client.get(format!("http://127.0.0.1:{}{path}", self.port)).send().await?.text().await?)
    }

    /// What `/metrics` says now; it must follow the rules.
    pub async fn scrape(&self) -> Scrape {
        let text = self.get("/metrics").await.unwrap();
        parse(&text).unwrap_or_else(|problem| panic!("{problem}\n{text}"))
    }

    /// Waits until a scrape fits, and returns what `found` found in it.
    pub async fn until<T>(&self, what: &str, mut found: impl FnMut(&Scrape) -> Option<T>) -> T {
        eventually(3 * SOON, what, async || Ok(found(&self.scrape().await))).await
    }

    /// What `/readyz` says now.
    pub async fn readiness(&self) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.get("/readyz").await?)?)
    }

    /// Waits for a component's reason that contains `part`, with this status.
    pub async fn says(&self, component: &str, status: &str, part: &str) {
        eventually(3 * SOON, &format!("{component} is {status}: {part}"), async || {
            let report = self.readiness().await?;
            let of = &report["components"][component];
            let reason = of["reason"].as_str().unwrap_or_default();
            anyhow::ensure!(of["status"] == status && reason.contains(part), "{report}");
            Ok(Some(()))
        })
        .await;
    }

    /// The tenants that it works for.
    pub async fn tenants(&self) -> anyhow::Result<BTreeSet<String>> {
        Ok(tenants_of(&self.readiness().await?))
    }

    /// Waits until it is ready and works for so many tenants; gives them.
    pub async fn works_for(&self, tenants: usize) -> BTreeSet<String> {
        eventually(3 * SOON, &format!("the ingester works for {tenants}"), async || {
            let report = self.readiness().await?;
            let held = tenants_of(&report);
            anyhow::ensure!(report["ready"] == true && held.len() == tenants, "{report}");
            Ok(Some(held))
        })
        .await
    }

    pub async fn ready(&self) {
        eventually(3 * SOON, "the ingester is ready", async || {
            let report = self.readiness().await?;
            anyhow::ensure!(report["ready"] == true, "{report}");
            Ok(Some(()))
        })
        .await;
    }
}

/// The components that are tenants: databases of tests are called like this, and their parts have a slash.
fn tenants_of(report: &serde_json::Value) -> BTreeSet<String> {
    let components = report["components"].as_object().into_iter().flatten();
    let is_tenant = |name: &&String| name.starts_with("t_") && !name.contains('/');
    components.map(|(name, _)| name).filter(is_tenant).cloned().collect()
}
