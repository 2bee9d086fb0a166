//! `api`: the public port of the sync API and its limits.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

use super::{
    cors::CorsConfig, duration, error::Problems, public_url::PublicUrl, sse::SseConfig, tls::TlsConfig,
};

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    pub bind: SocketAddr,
    /// What devices and browsers call; printed into enrolment codes.
    pub public_url: PublicUrl,
    /// Only these peers are believed when they say whom they forward for.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    pub tls: TlsConfig,
    pub cors: CorsConfig,
    /// Open connections of one replica; further ones wait to be accepted.
    pub max_connections: usize,
    /// How long the head of a request may take from its first byte on, and a TLS handshake.
    #[serde(with = "duration")]
    pub head_timeout: Duration,
    /// How long the body of a request may take.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// How long a caller may take nothing of its answer.
    #[serde(with = "duration")]
    pub write_timeout: Duration,
    /// Whether the API's description is served, and a page that shows it.
    pub docs: bool,
    /// Limit of a request body as it arrives.
    pub max_body_bytes: usize,
    /// Limit of a request body after decompression.
    pub max_decoded_body_bytes: usize,
    /// How long open requests may take to end after the first signal.
    #[serde(with = "duration")]
    pub shutdown_deadline: Duration,
    /// How long a snapshot's last page waits for the log to catch up.
    #[serde(with = "duration")]
    pub snapshot_wait: Duration,
    /// Connections per tenant.
    pub db_pool_size: usize,
    /// How many pages of snapshots are read at once, of all tenants together.
    pub snapshot_connections: usize,
    /// How often it is written down when devices were last seen and how far they had come.
    #[serde(with = "duration")]
    pub last_seen_interval: Duration,
    pub sse: SseConfig,
}

impl Default for ApiConfig {
    fn default() -> Self {
        ApiConfig {
            bind: SocketAddr::from(([0, 0, 0, 0], 8080)),
            public_url: PublicUrl::default(),
            trusted_proxies: Vec::new(),
            tls: TlsConfig::default(),
            cors: CorsConfig::default(),
            max_connections: 12_000,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            docs: true,
            max_body_bytes: 1 << 20,
            max_decoded_body_bytes: 8 << 20,
            shutdown_deadline: Duration::from_secs(30),
            snapshot_wait: Duration::from_secs(10),
            db_pool_size: 8,
            snapshot_connections: 4,
            last_seen_interval: Duration::from_secs(60),
            sse: SseConfig::default(),
        }
    }
}

impl ApiConfig {
    pub(super) fn check(&self, problems: &mut Problems) {
        problems.range("api.max_body_bytes", self.max_body_bytes, 1024..=64 << 20);
        problems.range(
            "api.max_decoded_body_bytes",
            self.max_decoded_body_bytes,
            self.max_body_bytes..=512 << 20,
        );
        problems.range(
            "api.shutdown_deadline",
            self.shutdown_deadline,
            Duration::from_millis(100)..=Duration::from_secs(600),
        );
        problems.range(
            "api.snapshot_wait",
            self.snapshot_wait,
            Duration::from_millis(100)..=Duration::from_secs(60),
        );
        problems.range("api.db_pool_size", self.db_pool_size, 1..=512);
        problems.range("api.snapshot_connections", self.snapshot_connections, 1..=512);
        problems.range(
            "api.last_seen_interval",
            self.last_seen_interval,
            Duration::from_millis(100)..=Duration::from_secs(300),
        );
        problems.range("api.max_connections", self.max_connections, 2..=1_000_000);
        if self.sse.max_connections >= self.max_connections {
            problems.add(
                "api.max_connections",
                "leaves no connection for requests; set it above api.sse.max_connections",
            );
        }
        let patience = || Duration::from_millis(100)..=Duration::from_secs(600);
        problems.range("api.head_timeout", self.head_timeout, patience());
        problems.range("api.body_timeout", self.body_timeout, patience());
        problems.range("api.write_timeout", self.write_timeout, patience());
        self.tls.check(problems);
        self.cors.check(problems);
        self.sse.check(problems);
    }
}

/// A list, or a text with commas, which is what a variable can hold; an address alone is a network of one.
fn networks<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<IpNet>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of addresses or networks")]
    enum Form {
        List(Vec<String>),
        Text(String),
    }
    let parts = match Form::deserialize(input)? {
        Form::List(parts) => parts,
        Form::Text(text) => text.split(',').map(str::to_owned).collect(),
    };
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            part.parse().or_else(|_| part.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                de::Error::custom(format!(
                    "{part:?} is neither an IP address nor a network such as 10.0.0.0/8"
                ))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    const TENANTS: &str = "tenants: [{url: 'postgres://u@h/a'}]";

    fn proxies(variable: &str) -> Result<Vec<String>, String> {
        let variables = [("POSDUIF__API__TRUSTED_PROXIES".to_owned(), variable.to_owned())];
        let config = Config::with_environment(TENANTS, variables).map_err(|error| error.to_string())?;
        Ok(config.api.trusted_proxies.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn proxies_are_a_list_in_the_file_and_a_text_with_commas_in_the_environment() {
        let yaml = format!("{TENANTS}\napi: {{trusted_proxies: [10.0.0.0/8, '::1']}}");
        assert_eq!(Config::from_yaml(&yaml).unwrap().api.trusted_proxies.len(), 2);
        assert_eq!(proxies("10.0.0.0/8, 192.0.2.1"), Ok(vec!["10.0.0.0/8".into(), "192.0.2.1/32".into()]));
        assert_eq!(proxies(""), Ok(vec![]));
        assert!(proxies("proxy.example").unwrap_err().contains("api.trusted_proxies: \"proxy.example\""));
    }

    #[test]
    fn streams_leave_connections_for_requests() {
        let yaml = format!("{TENANTS}\napi: {{max_connections: 50, sse: {{max_connections: 50}}}}");
        let error = Config::from_yaml(&yaml).unwrap_err().to_string();
        assert!(error.contains("api.max_connections: leaves no connection"), "{error}");
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let yaml = format!("{TENANTS}\napi: {{tls: {{cert_file: /a.pem}}}}");
        let error = Config::from_yaml(&yaml).unwrap_err().to_string();
        assert!(error.contains("api.tls: cert_file and key_file belong together"), "{error}");
    }

    #[test]
    fn a_decoded_body_may_not_be_smaller_than_an_encoded_one() {
        let yaml = format!("{TENANTS}\napi: {{max_body_bytes: 9000000}}");
        let error = Config::from_yaml(&yaml).unwrap_err().to_string();
        assert!(error.contains("api.max_decoded_body_bytes"), "{error}");
    }
}
