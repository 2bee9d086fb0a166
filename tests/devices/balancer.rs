//! Replicas on loopback addresses in, HAProxy with the shipped configuration before them out.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use posduif_provision::haproxy_installation;
use posduif_testkit::{Process, Scratch, eventually};

use crate::{dns::Dns, site::PATIENCE};

const SHIPPED: &str = include_str!("../../deploy/docker/haproxy.cfg");

/// The ports of a balancer, or of replicas, which all have the same.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// For devices.
    pub public: u16,
    /// For probes and metrics.
    pub admin: u16,
}

impl Ports {
    /// Free ones, so that the replicas can be told of the balancer before it runs.
    pub fn choose() -> Self {
        // Both are held while they are chosen, so that they differ.
        let held = [0; 2].map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [public, admin] = held.map(|listener| listener.local_addr().unwrap().port());
        Ports { public, admin }
    }
}

/// HAProxy as it is shipped, with other addresses and fewer connections. It ends when it is dropped.
pub struct Balancer {
    _process: Process,
    _dns: Dns,
    _scratch: Scratch,
    metrics: String,
    client: reqwest::Client,
}

impl Balancer {
    /// Starts HAProxy, found or else fetched, and waits until it sends requests to all of the replicas.
    pub async fn start(ports: Ports, replicas: &[Ipv4Addr], at: Ports) -> Self {
        let dns = Dns::start(replicas.to_vec()).await;
        let addresses = [
            ("dns 127.0.0.11:53", format!("dns {}", dns.address())),
            ("bind :8080", format!("bind 127.0.0.1:{}", ports.public)),
            ("bind :8404", format!("bind 127.0.0.1:{}", ports.admin)),
            ("api:8080", format!("api:{}", at.public)),
            ("port 9090", format!("port {}", at.admin)),
            // A machine that tests may allow fewer descriptors than the container gets.
            ("maxconn 20000", "maxconn 400".to_owned()),
        ];
        let mut text = SHIPPED.to_owned();
        for (shipped, here) in addresses {
            assert!(text.contains(shipped), "{shipped:?} is no longer in haproxy.cfg");
            text = text.replace(shipped, &here);
        }
        let scratch = Scratch::new();
        let file = scratch.join("haproxy.cfg");
        std::fs::write(&file, text).unwrap();
        let process = run(&file).await;
        let metrics = format!("http://127.0.0.1:{}/metrics", ports.admin);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let balancer = Balancer { _process: process, _dns: dns, _scratch: scratch, metrics, client };
        balancer.has(replicas.len()).await;
        balancer
    }

    /// Waits until so many replicas get requests.
    pub async fn has(&self, replicas: usize) {
        eventually(PATIENCE, "the balancer has found the replicas", async || {
            let up = self.metric("api", "haproxy_server_status", "state=\"UP\"").await?;
            Ok((up.values().filter(|value| **value > 0.0).count() == replicas).then_some(()))
        })
        .await;
    }

    /// How many requests each server of a backend was sent so far.
    pub async fn sent(&self, backend: &str) -> BTreeMap<String, f64> {
        let sent = eventually(PATIENCE, "the balancer tells its metrics", async || {
            self.metric(backend, "haproxy_server_loadbalanced_total", "").await.map(Some)
        });
        sent.await
    }

    /// How many requests each server of a backend is answering now.
    pub async fn sessions(&self, backend: &str) -> anyhow::Result<BTreeMap<String, f64>> {
        self.metric(backend, "haproxy_server_current_sessions", "").await
    }

    /// A metric of a backend, by server.
    async fn metric(&self, backend: &str, name: &str, label: &str) -> anyhow::Result<BTreeMap<String, f64>> {
        let text = self.client.get(&self.metrics).send().await?.error_for_status()?.text().await?;
        let (name, backend) = (format!("{name}{{"), format!("proxy=\"{backend}\""));
        let is_wanted =
            |line: &&str| line.starts_with(&name) && line.contains(&backend) && line.contains(label);
        let value = |line: &str| {
            let server = line.split("server=\"").nth(1)?.split('"').next()?;
            Some((server.to_owned(), line.rsplit(' ').next()?.parse().ok()?))
        };
        Ok(text.lines().filter(is_wanted).filter_map(value).collect())
    }
}

async fn run(configuration: &Path) -> Process {
    let haproxy = haproxy_installation(None).await.unwrap_or_else(|error| panic!("{error}"));
    let mut command = Process::command(haproxy.program());
    if let Some(libraries) = haproxy.libraries() {
        command = command.env("LD_LIBRARY_PATH", libraries);
    }
    command.args(["-db", "-f"]).arg(configuration).spawn()
}
