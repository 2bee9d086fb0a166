//! The configuration in, every long-lived dependency of the service in one place out.

use std::{sync::Arc, thread::available_parallelism, time::Duration};

use posduif_changelog::{LogError, Timeouts, attempts::Attempts};
use posduif_model::{
    TenantId,
    cursor::{CursorKey, InvalidCursor},
    rule::{RuleError, RuleSet},
};
use posduif_runtime::{
    config::{ApiConfig, AuthConfig, Config, ConfigError, RateLimitConfig, RedisConfig, SyncConfig},
    postgres::{ConnectError, SessionLimits},
};
use secrecy::ExposeSecret;

use crate::{
    certificate::{Certificate, CertificateError},
    clock::Clock,
    credential::{
        jwt::Jwt,
        password::{PasswordError, Passwords},
        pseudonym::Pseudonyms,
    },
    declaration::{self, Unusable},
    served::{Makings, Served},
    sync::admission::Admission,
    tenant::Tenant,
};

/// Within what a caller waits for, so that PostgreSQL has no work left for callers that went away.
const LIMITS: SessionLimits = SessionLimits {
    statement: Duration::from_secs(15),
    lock: Duration::from_secs(5),
    idle_in_transaction: Duration::from_secs(30),
};
/// For what PostgreSQL does not limit: a commit that waits for a standby, a server that stays silent.
const DATABASE_DEADLINE: Duration = Duration::from_secs(20);

/// Everything that handlers use; replicas hold nothing else, so any of them can answer any request.
pub struct App {
    /// A request's tenant always comes from its credential.
    pub served: Served,
    /// What leaves the server and what devices may write.
    pub rules: RuleSet,
    /// Signs and checks the log-ins of web users.
    pub jwt: Jwt,
    /// Seals and opens the cursors of devices.
    pub cursors: CursorKey,
    /// Checks passwords outside of the workers.
    pub passwords: Passwords,
    /// Keeps snapshots from taking all of PostgreSQL.
    pub admission: Admission,
    pub clock: Clock,
    pub api: ApiConfig,
    pub auth: AuthConfig,
    pub sync: SyncConfig,
    pub rate_limit: RateLimitConfig,
    /// What the public port shows, where it speaks TLS.
    pub certificate: Option<Arc<Certificate>>,
    /// How often somebody tried to get in.
    pub attempts: Attempts,
    /// Of those who tried.
    pub pseudonyms: Pseudonyms,
    /// For connections that no pool can lend.
    pub redis: RedisConfig,
}

/// The service cannot start; the message says what to change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Rules(#[from] RuleError),
    #[error(transparent)]
    Declaration(#[from] Unusable),
    #[error("tenant {tenant} cannot be served")]
    Tenant { tenant: TenantId, source: Box<ConnectError> },
    #[error("redis.url cannot be used")]
    Redis(#[from] LogError),
    #[error(transparent)]
    Passwords(#[from] PasswordError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("no key for cursors can be derived from auth.jwt_secret")]
    Cursors(#[from] InvalidCursor),
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    #[error("signals cannot be listened for")]
    Signals(#[source] std::io::Error),
    #[error("the port cannot be opened")]
    Listen(#[from] std::io::Error),
}

impl App {
    /// Makes pools and keys; nothing is connected yet, so a database or Redis that is down can come up later.
    pub fn new(config: &Config, clock: Clock) -> Result<Self, StartError> {
        let secret = config.auth.jwt_secret()?;
        let secret = secret.expose_secret().as_bytes();
        let pseudonyms = Pseudonyms::derive(secret);
        let mut jwt = Jwt::new(secret, config.auth.jwt_expiration);
        let mut cursors = CursorKey::derive(secret)?;
        for accepted in config.auth.jwt_accepted_secrets()? {
            jwt = jwt.accepting(accepted.expose_secret().as_bytes());
            cursors = cursors.accepting(accepted.expose_secret().as_bytes())?;
        }
        let rules = config.sync.rules()?;
        declaration::check(&rules)?;
        let redis = &config.redis;
        let redis = posduif_changelog::pool(
            redis.url.expose(),
            redis.pool_size,
            Timeouts { connect: redis.connect_timeout, response: redis.response_timeout },
        )?;
        let served = Served::new(Makings {
            redis: redis.clone(),
            limits: LIMITS,
            pool_size: config.api.db_pool_size,
            deadline: DATABASE_DEADLINE,
        });
        let mut change = served.plan(&config.tenants);
        served.take_over(&change);
        if let Some((tenant, source)) = change.refused.pop() {
            return Err(StartError::Tenant { tenant, source: Box::new(source) });
        }
        let cores = available_parallelism().map_or(1, usize::from);
        Ok(App {
            served,
            rules,
            jwt,
            cursors,
            passwords: Passwords::new(cores)?,
            admission: Admission::new(config.api.snapshot_connections),
            clock,
            api: config.api.clone(),
            auth: config.auth.clone(),
            sync: config.sync.clone(),
            rate_limit: config.rate_limit.clone(),
            certificate: Certificate::load(&config.api.tls)?,
            attempts: Attempts::new(redis),
            pseudonyms,
            redis: config.redis.clone(),
        })
    }

    pub fn tenant(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.served.get(id)
    }

    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.served.all()
    }

    /// The tenant of callers that name none; `None` where there are several.
    pub fn only_tenant(&self) -> Option<Arc<Tenant>> {
        self.served.only()
    }
}
