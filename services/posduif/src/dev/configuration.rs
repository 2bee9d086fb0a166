//! Running servers in, one configuration for each program out, with no password that it does not use.

use std::{net::IpAddr, path::PathBuf};

use posduif_provision::{Postgres, Redis, shipped};
use serde_json::{Value, json};

use super::{
    folder::{Folder, write_private},
    settings::Settings,
    tenant::{self, TENANT},
};

/// Where each program finds its own.
pub struct Configurations {
    pub ingester: PathBuf,
    pub api: PathBuf,
    /// What `posduif --config` takes.
    pub tool: PathBuf,
}

impl Configurations {
    pub fn write(
        folder: &Folder,
        postgres: &Postgres,
        redis: &Redis,
        settings: &Settings,
        host: IpAddr,
    ) -> anyhow::Result<Self> {
        let passwords = &settings.roles;
        let api = tenant::url(postgres, shipped::API, Some(&passwords.api));
        let silent_api = tenant::url(postgres, shipped::API, None);
        let ingester = tenant::url(postgres, shipped::INGESTER, Some(&passwords.ingester));
        let silent_ingester = tenant::url(postgres, shipped::INGESTER, None);
        let admin = tenant::url(postgres, shipped::ADMIN, Some(&passwords.admin));
        let common = |tenant: Value, user: &str| {
            let ports = settings.ports;
            json!({
                "tenants": [tenant],
                "redis": { "url": redis.url_of(user) },
                "api": { "bind": bind(host, ports.api), "public_url": api_url(host, ports.api) },
                "admin": {
                    "api_bind": format!("127.0.0.1:{}", ports.api_admin),
                    "ingester_bind": format!("127.0.0.1:{}", ports.ingester_admin),
                },
                "log": { "format": "text" },
            })
        };
        let for_ingester = json!({ "id": TENANT, "url": silent_api, "ingester_url": ingester });
        let for_api = json!({ "id": TENANT, "url": api });
        let for_tool =
            json!({ "id": TENANT, "url": api, "ingester_url": silent_ingester, "admin_url": admin });
        let mut api_config = common(for_api, shipped::API);
        if let Some(sections) = api_config.as_object_mut() {
            sections.insert("auth".to_owned(), json!({ "jwt_secret": settings.jwt_secret }));
        }
        Ok(Configurations {
            ingester: file(folder, "ingester.yaml", &common(for_ingester, shipped::INGESTER))?,
            api: file(folder, "api.yaml", &api_config)?,
            tool: file(folder, "config.yaml", &common(for_tool, shipped::TOOL))?,
        })
    }
}

fn file(folder: &Folder, name: &str, config: &Value) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    // JSON is YAML.
    write_private(&path, &serde_json::to_string_pretty(config)?)?;
    Ok(path)
}

fn bind(host: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(host, port).to_string()
}

/// Where devices and browsers reach the API.
pub fn api_url(host: IpAddr, port: u16) -> String {
    format!("http://{}", bind(host, port))
}
