//! The address of Redis, with its password kept out of every text.

use std::{fmt, str::FromStr};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

const SCHEMES: [&str; 4] = ["redis", "rediss", "valkey", "valkeys"];

/// A Redis URL that names a host; the scheme decides about TLS.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RedisUrl(String);

/// The text is no such URL; the text itself is not repeated, it may hold a password.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "is no Redis URL; write redis://host:6379/0, or rediss:// for TLS, \
     with %-escapes for special characters in user and password"
)]
pub struct InvalidRedisUrl;

impl RedisUrl {
    /// The whole URL, password included: for the Redis client, never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn has_password(&self) -> bool {
        Url::parse(&self.0).is_ok_and(|url| url.password().is_some())
    }

    pub fn set_password(&mut self, password: &SecretString) -> Result<(), InvalidRedisUrl> {
        let mut url = Url::parse(&self.0).map_err(|_| InvalidRedisUrl)?;
        url.set_password(Some(password.expose_secret())).map_err(|()| InvalidRedisUrl)?;
        self.0 = url.into();
        Ok(())
    }

    /// Scheme, host, port and database: what may stand in a log.
    pub fn redacted(&self) -> String {
        let Ok(url) = Url::parse(&self.0) else { return String::new() };
        let host = url.host_str().unwrap_or_default();
        format!("{}://{host}:{}{}", url.scheme(), url.port().unwrap_or(6379), url.path())
    }
}

impl Default for RedisUrl {
    fn default() -> Self {
        RedisUrl("redis://127.0.0.1:6379/0".to_owned())
    }
}

impl FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    fn from_str(text: &str) -> Result<Self, InvalidRedisUrl> {
        let url = Url::parse(text).map_err(|_| InvalidRedisUrl)?;
        let is_usable =
            SCHEMES.contains(&url.scheme()) && url.host_str().is_some_and(|host| !host.is_empty());
        if is_usable { Ok(RedisUrl(text.to_owned())) } else { Err(InvalidRedisUrl) }
    }
}

impl TryFrom<String> for RedisUrl {
    type Error = InvalidRedisUrl;

    fn try_from(text: String) -> Result<Self, InvalidRedisUrl> {
        text.parse()
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_shows_everything_but_its_password() {
        let mut url: RedisUrl = "redis://:hunter2@cache/3".parse().unwrap();
        assert_eq!(format!("{url:?}"), "redis://cache:6379/3");
        url.set_password(&"p@ss/word".into()).unwrap();
        assert_eq!(url.expose(), "redis://:p%40ss%2Fword@cache/3");
    }

    #[test]
    fn other_schemes_and_urls_without_a_host_are_refused() {
        for text in ["http://cache", "redis:///0", "cache:6379", ""] {
            assert_eq!(text.parse::<RedisUrl>(), Err(InvalidRedisUrl), "{text}");
        }
    }
}
