//! A configuration and a tenant's name in, a session as that tenant's administrator out.

use std::path::Path;

use anyhow::Context;
use posduif_accounts::{AccountError, Caches};
use posduif_changelog::{RedisPool, Timeouts};
use posduif_model::TenantId;
use posduif_runtime::{
    config::{Config, RedisConfig, TenantConfig},
    postgres,
};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// One tenant, as those see it who manage it.
pub struct Operator {
    pub config: Config,
    pub tenant: TenantId,
    pub client: Client,
    pub caches: Caches,
    driver: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Operator {
    /// Connects to the tenant named, or to the only one.
    pub async fn open(path: &Path, named: Option<&TenantId>) -> anyhow::Result<Self> {
        let config = Config::load(path)?;
        let tenant = chosen(&config, named)?.clone();
        Self::of(config, &tenant).await
    }

    /// Connects to one of the configuration's tenants.
    pub async fn of(config: Config, tenant: &TenantConfig) -> anyhow::Result<Self> {
        let caches = caches(&config.redis, &tenant.id)?;
        let (client, driver) = postgres::connect(&tenant.as_admin()?, "posduif").await?;
        let (tenant, driver) = (tenant.id.clone(), tokio::spawn(driver));
        Ok(Operator { config, tenant, client, caches, driver })
    }

    /// Ends the session in order.
    pub async fn close(self) -> anyhow::Result<()> {
        drop(self.client);
        Ok(self.driver.await.context("closing the connection")??)
    }

    /// What an operator does about a change that failed; `what` names its object.
    pub fn explain(&self, error: AccountError, what: &str) -> anyhow::Error {
        match error {
            AccountError::Unknown => {
                anyhow::anyhow!("{} has no {what}; `list` shows who is there", self.tenant)
            }
            AccountError::Log(error) => anyhow::anyhow!(
                "Redis must forget the credentials too and could not be asked, so {what} may still be let in; \
                 run this again once it answers: {error}"
            ),
            AccountError::Postgres(error) => anyhow::Error::new(error).context("PostgreSQL refused"),
        }
    }
}

/// The tenant that a command means.
fn chosen<'c>(config: &'c Config, named: Option<&TenantId>) -> anyhow::Result<&'c TenantConfig> {
    let tenant = match named {
        Some(id) => config.tenants.iter().find(|tenant| tenant.id == *id),
        None => config.tenants.first().filter(|_| config.tenants.len() == 1),
    };
    tenant.context("name one of the configured tenants with --tenant; `posduif tenant list` shows them")
}

/// Redis, as the operator's tool; nothing is connected yet.
pub fn redis(redis: &RedisConfig) -> anyhow::Result<RedisPool> {
    let timeouts = Timeouts { connect: redis.connect_timeout, response: redis.response_timeout };
    Ok(posduif_changelog::pool(redis.url.expose(), 1, timeouts)?)
}

/// What the replicas remember of the tenant's credentials; nothing is connected yet.
pub fn caches(redis_config: &RedisConfig, tenant: &TenantId) -> anyhow::Result<Caches> {
    Ok(Caches::new(&redis(redis_config)?, tenant))
}
