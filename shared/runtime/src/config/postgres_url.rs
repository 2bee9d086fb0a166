//! The address of one tenant database, with its password kept out of every text.

use std::{fmt, str::FromStr};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio_postgres::config::Host;

/// A connection URL of PostgreSQL that names user, host and database.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PostgresUrl {
    config: tokio_postgres::Config,
    database: String,
    text: String,
}

/// The text is no such URL; the text itself is not repeated, it may hold a password.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidPostgresUrl {
    #[error(
        "is no PostgreSQL URL; write postgres://user@host:5432/database, with %-escapes for special characters \
         in user and password, and only parameters that tokio-postgres knows"
    )]
    Syntax,
    #[error(
        "asks for an sslmode that does not exist here; write disable, prefer or require: \
         wherever TLS is used the certificate and the host name are verified"
    )]
    SslMode,
    #[error("names no {0}; write postgres://user@host:5432/database")]
    Missing(&'static str),
}

impl PostgresUrl {
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The parsed URL as it was written, password included.
    pub fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }

    /// The text itself, with a password that stands in it.
    pub fn as_written(&self) -> &str {
        &self.text
    }

    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    pub fn set_password(&mut self, password: &SecretString) {
        self.config.password(password.expose_secret());
    }

    /// User, hosts, ports and database: what may stand in a log.
    pub fn redacted(&self) -> String {
        let ports = self.config.get_ports();
        let hosts: Vec<String> = self
            .config
            .get_hosts()
            .iter()
            .enumerate()
            .map(|(index, host)| {
                let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
                match host {
                    Host::Tcp(host) => format!("{host}:{port}"),
                    Host::Unix(path) => format!("{}:{port}", path.display()),
                }
            })
            .collect();
        let user = self.config.get_user().unwrap_or_default();
        format!("postgres://{user}@{}/{}", hosts.join(","), self.database)
    }
}

impl FromStr for PostgresUrl {
    type Err = InvalidPostgresUrl;

    fn from_str(text: &str) -> Result<Self, InvalidPostgresUrl> {
        let config: tokio_postgres::Config = text.parse().map_err(|_| match text.contains("sslmode=") {
            true if !["disable", "prefer", "require"]
                .iter()
                .any(|m| text.contains(&format!("sslmode={m}"))) =>
            {
                InvalidPostgresUrl::SslMode
            }
            _ => InvalidPostgresUrl::Syntax,
        })?;
        if config.get_hosts().is_empty() {
            return Err(InvalidPostgresUrl::Missing("host"));
        }
        if config.get_user().is_none_or(str::is_empty) {
            return Err(InvalidPostgresUrl::Missing("user"));
        }
        let database = config.get_dbname().filter(|name| !name.is_empty());
        let database = database.ok_or(InvalidPostgresUrl::Missing("database"))?.to_owned();
        Ok(PostgresUrl { config, database, text: text.to_owned() })
    }
}

impl TryFrom<String> for PostgresUrl {
    type Error = InvalidPostgresUrl;

    fn try_from(text: String) -> Result<Self, InvalidPostgresUrl> {
        text.parse()
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_shows_everything_but_its_password() {
        let url: PostgresUrl = "postgres://bob:hun%20ter@db1,db2:6432/shop?sslmode=require".parse().unwrap();
        assert_eq!(format!("{url:?}"), "postgres://bob@db1:5432,db2:6432/shop");
        assert_eq!(url.config().get_password(), Some(&b"hun ter"[..]));
    }

    #[test]
    fn an_error_tells_what_is_missing_and_never_repeats_the_text() {
        let refused = |text: &str| text.parse::<PostgresUrl>().unwrap_err();
        assert_eq!(refused("postgres://u:hunter2@h"), InvalidPostgresUrl::Missing("database"));
        assert_eq!(refused("postgres://h/db"), InvalidPostgresUrl::Missing("user"));
        assert_eq!(refused("postgres:///db?user=u"), InvalidPostgresUrl::Missing("host"));
        assert_eq!(refused("postgres://u@h/db?sslmode=verify-full"), InvalidPostgresUrl::SslMode);
        let error = refused("postgres://u@h/db?hunter2=1");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
