//! Hints from Redis in, tails and checks that look at once out; whatever is lost is looked for all the same.

use std::{future::pending, sync::Arc, time::Duration};

use posduif_changelog::{
    LogError, Timeouts,
    wake::{Hint, Subscriber},
};
use posduif_runtime::backoff::Backoff;
use tokio::{
    select,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{hub::Hub, recheck::Named};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a silent subscription is asked whether it lives.
const CHECK: Duration = Duration::from_secs(10);

/// Listens on one connection for all tenants until it is stopped.
pub(super) async fn listen(hub: Arc<Hub>, stop: CancellationToken) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let Err(error) = select! {
            () = stop.cancelled() => return,
            // It subscribes anew.
            () = hub.changed.notified() => continue,
            ended = subscribed(&hub, &mut backoff) => ended,
        };
        tracing::warn!(%error, "no hints of changes; live connections hear of them a little later");
        select! {
            () = stop.cancelled() => return,
            () = sleep(backoff.next_pause(rand::random())) => {}
        }
    }
}

/// Passes hints on until the subscription ends.
async fn subscribed(hub: &Hub, backoff: &mut Backoff) -> Result<std::convert::Infallible, LogError> {
    let redis = &hub.app.redis;
    let patience = Timeouts { connect: redis.connect_timeout, response: redis.response_timeout };
    let tenants = hub.tenants();
    if tenants.is_empty() {
        return pending().await;
    }
    let named = tenants.keys().cloned();
    let mut subscriber = Subscriber::connect(redis.url.expose(), patience, named).await?;
    backoff.reset();
    // Of what happened before there were no hints.
    tenants.values().for_each(|live| live.wake.notify_one());
    let mut check = Instant::now() + CHECK;
    loop {
        let hint = select! {
            hint = subscriber.next() => hint,
            () = sleep_until(check) => {
                subscriber.check().await?;
                check = Instant::now() + CHECK;
                continue;
            }
        };
        match hint {
            None => return Err(LogError::Unavailable("the subscription ended".to_owned())),
            Some(Hint::Watermark(tenant)) => {
                if let Some(live) = tenants.get(&tenant) {
                    live.wake.notify_one();
                }
            }
            Some(Hint::Credential(tenant, device)) => {
                if let Some(live) = tenants.get(&tenant) {
                    // The check ends with the hub, and so does this.
                    let _ = live.named.send(Named::Device(device));
                }
            }
            Some(Hint::Account(tenant, user)) => {
                if let Some(live) = tenants.get(&tenant) {
                    let _ = live.named.send(Named::User(user));
                }
            }
        }
    }
}
