//! Commits that readers may see in, calls to an application's back end out: whom each concerns, so that it can wake phones.
//!
//! It stands beside the session that follows the WAL and shares nothing with it that anybody waits for: it looks at the log
//! over a connection of its own, as readers do, and the log is its queue.

mod body;
mod courier;
mod feed;
mod receiver;
mod signature;

use std::{path::PathBuf, sync::Arc, time::Duration};

use posduif_changelog::{LogError, LogReader, Timeouts, pool};
use posduif_model::{Lsn, TenantId};
use posduif_runtime::config::{ConfigError, RedisConfig, WebhookConfig};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use self::{courier::Courier, feed::Feed, receiver::Receiver};
use crate::{metrics::IngesterMetrics, vitals::Vitals};

/// Settings of the webhook that cannot be used; the ingester does not start.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot read the webhook.ca_file {path}; it must exist and be readable for the service's user")]
    CaFile { path: PathBuf, source: std::io::Error },
    #[error("the webhook.ca_file {0} holds no certificate in PEM")]
    NoCertificate(PathBuf),
    #[error(
        "calls to the webhook cannot be set up; TLS needs trusted certificates, install the system's ca-certificates or \
         name the receiver's own in webhook.ca_file"
    )]
    Client(#[source] reqwest::Error),
}

/// Who is called and what it is told; the same for all tenants.
#[derive(Clone, Debug)]
pub struct Webhook {
    receiver: Receiver,
    batch: usize,
    shared: bool,
    max_age: Duration,
}

/// A tenant that is owned, as far as its webhook must know it.
pub struct Owned {
    pub tenant: TenantId,
    /// The fencing token with which it was taken over.
    pub token: i64,
    /// Changes when readers may see more.
    pub published: watch::Receiver<Lsn>,
    pub metrics: IngesterMetrics,
    pub vitals: Arc<Vitals>,
}

/// What a courier that died waits before it begins again.
const PAUSE: Duration = Duration::from_secs(5);
/// Nothing it asks for is larger than a page of commits, and nobody else uses its connection.
const CONNECTIONS: usize = 1;

impl Webhook {
    /// `None` where no webhook is configured.
    pub fn new(config: &WebhookConfig) -> Result<Option<Self>, WebhookError> {
        let Some(url) = &config.url else { return Ok(None) };
        let receiver = Receiver::new(url.clone(), config)?;
        let WebhookConfig { batch, shared, max_age, .. } = *config;
        Ok(Some(Webhook { receiver, batch, shared, max_age }))
    }

    /// Tells a tenant's commits for as long as the handle is held.
    ///
    /// Whatever happens to it ends no session: a courier that dies is reported and begins again where Redis knows.
    pub fn follow(&self, owned: Owned, redis: &RedisConfig) -> Result<AbortOnDropHandle<()>, LogError> {
        let timeouts = Timeouts { connect: redis.connect_timeout, response: redis.response_timeout };
        let pool = pool(redis.url.expose(), CONNECTIONS, timeouts)?;
        let (webhook, log) = (self.clone(), LogReader::new(pool, &owned.tenant));
        owned.vitals.calls();
        owned.metrics.webhook.begin(owned.tenant.as_str(), &receiver::REASONS, &feed::SKIPS);
        Ok(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let courier = webhook.courier(&owned, log.clone());
                let running = AbortOnDropHandle::new(tokio::spawn(courier.run(owned.published.clone())));
                let Err(error) = running.await else { return };
                tracing::error!(tenant = %owned.tenant, %error, "the webhook died; beginning it again");
                tokio::time::sleep(PAUSE).await;
            }
        })))
    }

    fn courier(&self, owned: &Owned, log: LogReader) -> Courier {
        let feed = Feed::new(log, owned.tenant.clone(), self.batch, self.shared, self.max_age);
        Courier::new(feed, self.receiver.clone(), owned)
    }
}
