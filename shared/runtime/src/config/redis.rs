//! `redis`: where the log of changes lives.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::Deserialize;

use super::{duration, error::Problems, redis_url::RedisUrl};
use crate::secret::{self, SecretSource};

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// The password is part of it once the configuration is loaded.
    pub url: RedisUrl,
    #[serde(deserialize_with = "secret::deserialize")]
    password: Option<SecretString>,
    password_file: Option<PathBuf>,
    /// Connections per process; blocking reads have their own.
    pub pool_size: usize,
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    #[serde(with = "duration")]
    pub response_timeout: Duration,
    /// Replicas that must have a change on disk too before PostgreSQL may forget it.
    pub durable_replicas: u32,
}

impl Default for RedisConfig {
    fn default() -> Self {
        RedisConfig {
            url: RedisUrl::default(),
            password: None,
            password_file: None,
            pool_size: 16,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5),
            durable_replicas: 0,
        }
    }
}

impl RedisConfig {
    pub(super) fn settle(&mut self, problems: &mut Problems) {
        let timeouts = || Duration::from_millis(10)..=Duration::from_secs(60);
        problems.range("redis.pool_size", self.pool_size, 1..=1024);
        problems.range("redis.connect_timeout", self.connect_timeout, timeouts());
        problems.range("redis.response_timeout", self.response_timeout, timeouts());
        let password = SecretSource::new("password", self.password.take(), self.password_file.take())
            .and_then(|source| source.read());
        match password {
            Ok(Some(_)) if self.url.has_password() => {
                problems.add("redis.password", "is given in the URL too; keep one of them");
            }
            Ok(Some(password)) => {
                if let Err(error) = self.url.set_password(&password) {
                    problems.add("redis.url", error);
                }
            }
            Ok(None) => {}
            Err(error) => problems.add("redis.password", error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn the_password_becomes_a_part_of_the_url_and_stays_unseen() {
        let yaml = "{tenants: [{url: 'postgres://u@h/a'}], redis: {url: 'redis://cache', password: hunter2}}";
        let config = Config::from_yaml(yaml).unwrap();
        assert_eq!(config.redis.url.expose(), "redis://:hunter2@cache");
        assert!(!format!("{config:?}").contains("hunter2"));
        let twice = yaml.replace("//cache", "//:hunter2@cache");
        let error = Config::from_yaml(&twice).unwrap_err().to_string();
        assert!(error.contains("redis.password") && !error.contains("hunter2"), "{error}");
    }
}
