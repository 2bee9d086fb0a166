//! One YAML file and the environment in, checked settings for both services out.

mod admin;
mod api;
mod auth;
mod cors;
mod duration;
mod error;
mod files;
mod load;
mod log;
mod postgres_url;
mod public_url;
mod rate_limit;
mod redis;
mod redis_url;
mod retention;
mod sse;
mod sync;
mod tenants;
mod tenants_file;
mod tls;
mod wal;
mod webhook;
mod webhook_url;

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use admin::AdminConfig;
pub use api::ApiConfig;
pub use auth::{AuthConfig, DeviceAuth};
pub use cors::{AllowedOrigins, CorsConfig, InvalidOrigin, Origin};
pub use error::{ConfigError, Problem};
pub use files::{Fingerprint, Sections};
pub use log::{LogConfig, LogFormat};
pub use postgres_url::{InvalidPostgresUrl, PostgresUrl};
pub use public_url::{InvalidPublicUrl, PublicUrl};
pub use rate_limit::RateLimitConfig;
pub use redis::RedisConfig;
pub use redis_url::{InvalidRedisUrl, RedisUrl};
pub use retention::RetentionConfig;
pub use sse::SseConfig;
pub use sync::{MAX_BATCH_SIZE, SyncConfig};
pub use tenants::{Reader, TenantConfig};
pub use tenants_file::{Entry, TenantsFile, TenantsFileError};
pub use tls::TlsConfig;
pub use wal::WalConfig;
pub use webhook::WebhookConfig;
pub use webhook_url::{InvalidWebhookUrl, WebhookUrl};

use error::Problems;

/// All settings of an installation; each service reads the sections that concern it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Those of the `tenants_file` among them, at the end; their ids differ. Without such a file there is at least one.
    #[serde(default)]
    pub tenants: Vec<TenantConfig>,
    /// A YAML list of further tenants, which `posduif tenant add` and `drop` write.
    pub tenants_file: Option<PathBuf>,
    #[serde(default)]
    pub redis: RedisConfig,
    #[serde(default)]
    pub api: ApiConfig,
    #[serde(default)]
    pub admin: AdminConfig,
    #[serde(default)]
    pub sync: SyncConfig,
    #[serde(default)]
    pub auth: AuthConfig,
    #[serde(default)]
    pub rate_limit: RateLimitConfig,
    #[serde(default)]
    pub webhook: WebhookConfig,
    #[serde(default)]
    pub log: LogConfig,
}

impl Config {
    /// Reads the file, lets `POSDUIF__SECTION__KEY` of the environment override it, reads the secret files
    /// that both services need, and checks every value.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Config::load_for(Reader::Api, path)
    }

    /// [`Config::load`] with the passwords that this program needs.
    pub fn load_for(reader: Reader, path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::read(reader, &text, load::environment())
    }

    /// Where further tenants are listed, whether that file can be used or not.
    ///
    /// # Errors
    /// The file cannot be read, or is no YAML.
    pub fn tenants_file_of(path: &Path) -> Result<Option<PathBuf>, ConfigError> {
        #[derive(Deserialize)]
        struct Key {
            tenants_file: Option<PathBuf>,
        }
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Ok(load::parse::<Key>(&text, load::environment())?.tenants_file)
    }

    /// The configuration that a text alone describes, without the environment.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        Config::from_yaml_for(Reader::Api, text)
    }

    /// [`Config::from_yaml`] with the passwords that this program needs.
    pub fn from_yaml_for(reader: Reader, text: &str) -> Result<Self, ConfigError> {
        Config::read(reader, text, [])
    }

    /// The configuration that a text describes, overridden by these variables.
    pub fn with_environment(
        text: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Config::read(Reader::Api, text, variables)
    }

    fn read(
        reader: Reader,
        text: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut config: Config = load::parse(text, variables)?;
        let own = config.tenants.len();
        match &config.tenants_file {
            Some(path) => config.tenants.extend(tenants_file::tenants(path)?),
            None if own == 0 => return Err(no_tenant()),
            None => {}
        }
        let mut problems = Problems::default();
        tenants::settle(&mut config.tenants, own, reader, &mut problems);
        config.redis.settle(&mut problems);
        config.api.check(&mut problems);
        config.sync.check(&mut problems);
        config.auth.check(&mut problems);
        config.check_number(config.tenants.len(), &mut problems);
        config.rate_limit.check(&mut problems);
        config.webhook.check(&mut problems);
        config.log.check(&mut problems);
        problems.into_result()?;
        Ok(config)
    }

    /// Refuses settings that do not go together with so many tenants.
    ///
    /// # Errors
    /// `Invalid`; the settings are those of this configuration, the number may be that of a later one.
    pub fn allows(&self, tenants: usize) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        self.check_number(tenants, &mut problems);
        problems.into_result()
    }

    fn check_number(&self, tenants: usize, problems: &mut Problems) {
        self.sync.wal.check_number(tenants, problems);
        self.auth.check_number(tenants, problems);
    }
}

fn no_tenant() -> ConfigError {
    let what = "is empty; name at least one tenant with its url, or a tenants_file".to_owned();
    ConfigError::Invalid(vec![Problem { key: "tenants".to_owned(), what }])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANTS: &str = "tenants: [{url: 'postgres://u@h/a'}]\n";
    const SHIPPED: &str = include_str!("../../../../config/config.yaml");

    fn refused(yaml: &str) -> String {
        Config::from_yaml(&format!("{TENANTS}{yaml}")).unwrap_err().to_string()
    }

    fn with_variable(name: &str, value: &str) -> Result<Config, ConfigError> {
        let yaml = format!("{TENANTS}redis: {{pool_size: 4}}");
        Config::with_environment(&yaml, [(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_path() {
        for (yaml, key) in [
            ("redis: {pool: 4}", "redis.pool: unknown field"),
            ("sync: {wal: {slots: 4}}", "sync.wal.slots: unknown field"),
            ("cache: {}", "cache: unknown field"),
        ] {
            let error = refused(yaml);
            assert!(error.contains(key), "{error}");
        }
        let error =
            Config::from_yaml("tenants: [{url: 'postgres://u@h/a', user: x}]").unwrap_err().to_string();
        assert!(error.contains("tenants[0].user: unknown field"), "{error}");
        let error = with_variable("POSDUIF__REDIS__POOL", "4").unwrap_err().to_string();
        assert!(error.contains("redis.pool: unknown field"), "{error}");
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        assert_eq!(with_variable("POSDUIF__REDIS__POOL_SIZE", "7").unwrap().redis.pool_size, 7);
        assert!(!with_variable("POSDUIF__SYNC__WAL__ENABLED", "false").unwrap().sync.wal.enabled);
        assert_eq!(with_variable("POSDUIF__LOG__FORMAT", "text").unwrap().log.format, LogFormat::Text);
        let config = with_variable("POSDUIF__TENANTS__0__URL", "postgres://u@h/b").unwrap();
        assert_eq!(config.tenants[0].id.as_str(), "b");
        assert_eq!(with_variable("POSDUIF_REDIS_POOL_SIZE", "7").unwrap().redis.pool_size, 4);
    }

    #[test]
    fn every_problem_is_told_at_once_with_its_key() {
        let error = refused("redis: {pool_size: 0}\nsync: {batch_size: 501}\nlog: {level: 'info,=='}");
        for key in
            ["redis.pool_size: 0 is out of range, allowed are 1 to 1024", "sync.batch_size", "log.level"]
        {
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_unseen() {
        let error = refused("redis: {pool_size: hunter2}");
        assert!(
            error.contains("redis.pool_size: has the wrong type") && !error.contains("hunter2"),
            "{error}"
        );
        let error = with_variable("POSDUIF__TENANTS", "postgres://u:hunter2@h/a").unwrap_err().to_string();
        assert!(error.contains("tenants: has the wrong type") && !error.contains("hunter2"), "{error}");
        let error = refused("api: {shutdown_deadline: 30}");
        assert!(error.contains("api.shutdown_deadline: \"30\" is no duration"), "{error}");
    }

    #[test]
    fn the_shipped_file_shows_the_defaults() {
        let shipped = Config::from_yaml(SHIPPED).unwrap();
        let minimal =
            Config::from_yaml("tenants: [{url: 'postgres://posduif_api:posduif@127.0.0.1:5432/tenant_1'}]");
        assert_eq!(format!("{shipped:?}"), format!("{:?}", minimal.unwrap()));
    }

    #[test]
    fn the_shipped_file_shows_every_key() {
        for section in [
            "redis",
            "api",
            "api.sse",
            "api.cors",
            "api.tls",
            "admin",
            "sync",
            "sync.wal",
            "auth",
            "rate_limit",
            "webhook",
            "log",
            "tenants[0]",
        ] {
            let name =
                format!("POSDUIF__{}__NO_SUCH_KEY", section.replace(['.', '['], "__").replace(']', ""));
            let error = with_variable(&name.to_uppercase(), "").unwrap_err().to_string();
            let keys: Vec<_> = error.split('`').skip(3).step_by(2).collect();
            assert!(keys.len() > 1, "{error}");
            for key in keys {
                assert!(SHIPPED.contains(&format!(" {key}:")), "{section}.{key} is not shown");
            }
        }
        let error = with_variable("POSDUIF__NO_SUCH_KEY", "").unwrap_err().to_string();
        let keys: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        assert!(keys.contains(&"tenants_file"), "{error}");
        for key in keys {
            let shown = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key}:"));
            assert!(SHIPPED.lines().any(shown), "{key} is not shown");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Path::new("no/such/config.yaml")).unwrap_err().to_string();
        assert!(error.contains("no/such/config.yaml") && error.contains("--config"), "{error}");
    }
}
