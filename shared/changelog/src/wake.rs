//! The channels of some tenants in, hints that something may have changed out; hints may be lost.

use std::collections::HashMap;

use futures::StreamExt;
use posduif_model::{DeviceId, TenantId, UserId};
use redis::{
    IntoConnectionInfo,
    aio::{PubSubSink, PubSubStream},
};
use tokio::time::timeout;

use crate::{connect::Timeouts, error::LogError, key::Keys};

/// Begin the messages that name a device and a user; every other message says that the watermark moved.
const DEVICE: &str = "device ";
const USER: &str = "user ";

pub(crate) fn device_message(device: &DeviceId) -> String {
    format!("{DEVICE}{device}")
}

pub(crate) fn user_message(user: UserId) -> String {
    format!("{USER}{user}")
}

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Readers may see more of the tenant's log.
    Watermark(TenantId),
    /// The credential of a device changed.
    Credential(TenantId, DeviceId),
    /// The account of a user changed.
    Account(TenantId, UserId),
}

/// Listens on a connection of its own, whatever the number of tenants.
pub struct Subscriber {
    sink: PubSubSink,
    stream: PubSubStream,
    tenants: HashMap<String, TenantId>,
    patience: Timeouts,
}

impl Subscriber {
    /// Connects and subscribes; messages that were sent before are not seen.
    ///
    /// # Errors
    /// `Forbidden` where the user of Redis may not, else `Unavailable`.
    pub async fn connect(
        info: impl IntoConnectionInfo,
        patience: Timeouts,
        tenants: impl IntoIterator<Item = TenantId>,
    ) -> Result<Self, LogError> {
        let tenants: HashMap<String, TenantId> =
            tenants.into_iter().map(|tenant| (Keys::new(&tenant).wake(), tenant)).collect();
        let client = redis::Client::open(info)?;
        let connected = timeout(patience.connect, client.get_async_pubsub()).await;
        let (mut sink, stream) = connected.map_err(|_| late())??.split();
        let channels: Vec<&String> = tenants.keys().collect();
        timeout(patience.response, sink.subscribe(channels)).await.map_err(|_| late())??;
        Ok(Subscriber { sink, stream, tenants, patience })
    }

    /// The next hint; `None` once the connection has ended. Giving up waiting loses nothing.
    pub async fn next(&mut self) -> Option<Hint> {
        loop {
            let message = self.stream.next().await?;
            let Some(tenant) = self.tenants.get(message.get_channel_name()) else { continue };
            let text = String::from_utf8_lossy(message.get_payload_bytes());
            let tenant = tenant.clone();
            if let Some(device) = text.strip_prefix(DEVICE).and_then(|device| device.parse().ok()) {
                return Some(Hint::Credential(tenant, device));
            }
            let user = text.strip_prefix(USER).and_then(|user| user.parse().ok());
            return Some(match user {
                Some(user) => Hint::Account(tenant, user),
                None => Hint::Watermark(tenant),
            });
        }
    }

    /// Asks Redis for an answer: a connection that went away in silence brings no hints either.
    pub async fn check(&mut self) -> Result<(), LogError> {
        let _: redis::Value =
            timeout(self.patience.response, self.sink.ping()).await.map_err(|_| late())??;
        Ok(())
    }
}

fn late() -> LogError {
    LogError::Unavailable("the subscription was not answered in time".to_owned())
}
