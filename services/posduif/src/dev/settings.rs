//! What an installation keeps from one run to the next: secrets and ports.

use std::fs;

use anyhow::Context;
use posduif_provision::free_port;
use serde::{Deserialize, Serialize};

use super::folder::{Folder, write_private};

/// Secrets are random and made once; not `Debug`, so that none is ever printed by accident.
#[derive(Serialize, Deserialize)]
pub struct Settings {
    /// Of the PostgreSQL superuser, who makes roles and the database.
    pub admin_password: String,
    /// An installation of an earlier version had one role for everything.
    #[serde(default)]
    pub roles: Roles,
    #[serde(default)]
    pub redis_users: RedisUsers,
    pub jwt_secret: String,
    pub web_users: Vec<WebUser>,
    pub ports: Ports,
}

/// The passwords of PostgreSQL's roles.
#[derive(Serialize, Deserialize)]
pub struct Roles {
    pub admin: String,
    pub ingester: String,
    pub api: String,
}

/// The passwords of Redis' users.
#[derive(Serialize, Deserialize)]
pub struct RedisUsers {
    pub ingester: String,
    pub api: String,
    pub tool: String,
}

impl Default for Roles {
    fn default() -> Self {
        Roles { admin: secret(32), ingester: secret(32), api: secret(32) }
    }
}

impl Default for RedisUsers {
    fn default() -> Self {
        RedisUsers { ingester: secret(32), api: secret(32), tool: secret(32) }
    }
}

/// A demo user and the password to log in with.
#[derive(Clone, Serialize, Deserialize)]
pub struct WebUser {
    pub username: String,
    pub password: String,
}

/// The ports of the last run; a second run keeps those that are still free, so that devices find the API again.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct Ports {
    pub postgres: u16,
    pub redis: u16,
    pub api: u16,
    pub api_admin: u16,
    pub ingester_admin: u16,
}

impl Settings {
    /// Reads the settings of an earlier run, or makes new ones.
    pub fn load(folder: &Folder) -> anyhow::Result<Self> {
        let path = folder.settings();
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| {
                format!("{} is damaged; posduif dev reset makes a new installation", path.display())
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Settings::random()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub fn save(&self, folder: &Folder) -> anyhow::Result<()> {
        write_private(&folder.settings(), &serde_json::to_string_pretty(self)?)
    }

    fn random() -> Self {
        let web_user = |username: &str| WebUser { username: username.to_owned(), password: secret(12) };
        Settings {
            admin_password: secret(32),
            roles: Roles::default(),
            redis_users: RedisUsers::default(),
            jwt_secret: secret(48),
            web_users: vec![web_user("Bob"), web_user("Jane")],
            ports: Ports::default(),
        }
    }
}

/// Letters and digits: safe in URLs, YAML and command lines.
fn secret(length: usize) -> String {
    use rand::distr::{Alphanumeric, SampleString};

    Alphanumeric.sample_string(&mut rand::rng(), length)
}

/// The port of the last run where it is still free, else another free one.
pub fn keep_or_choose(last: u16) -> anyhow::Result<u16> {
    match last != 0 && is_free(last) {
        true => Ok(last),
        false => Ok(free_port()?),
    }
}

/// Whether nobody listens on this port of the loopback address.
pub fn is_free(port: u16) -> bool {
    std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
}
