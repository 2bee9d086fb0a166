//! A feed's calls in, one at a time to the receiver and again until it takes them out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use posduif_changelog::{Delivered, LogError};
use posduif_model::{Lsn, TenantId};
use posduif_runtime::backoff::Backoff;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Owned,
    feed::{Call, Feed},
    receiver::{Receiver, Refusal},
};
use crate::{metrics::IngesterMetrics, vitals::Vitals};

/// Pauses between two attempts at a call: the first at most a second, none shorter or longer than these.
const FIRST: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(300);
/// Pauses between two looks at a log that cannot be read.
const BREATH: Duration = Duration::from_millis(200);
const LONGEST_BREATH: Duration = Duration::from_secs(10);
/// A log that fell back, or moved under every look, is looked at again although nothing is published.
const LOOK: Duration = Duration::from_secs(5);
/// How often it is written down that commits concerned nobody: what is read again costs little.
const KEEP: Duration = Duration::from_secs(10);

/// Carries one tenant's commits to the receiver.
pub struct Courier {
    feed: Feed,
    receiver: Receiver,
    tenant: TenantId,
    token: i64,
    metrics: IngesterMetrics,
    vitals: Arc<Vitals>,
    /// What Redis was told last, and when.
    kept: Option<(Delivered, Instant)>,
    /// The last attempt failed.
    troubled: bool,
}

impl Courier {
    pub fn new(feed: Feed, receiver: Receiver, owned: &Owned) -> Self {
        let Owned { tenant, token, metrics, vitals, .. } = owned;
        Courier {
            feed,
            receiver,
            tenant: tenant.clone(),
            token: *token,
            metrics: metrics.clone(),
            vitals: Arc::clone(vitals),
            kept: None,
            troubled: false,
        }
    }

    /// Runs until the session ends, or another ingester takes the tenant over.
    pub async fn run(mut self, mut published: watch::Receiver<Lsn>) {
        let mut backoff = Backoff::new(BREATH, LONGEST_BREATH);
        let mut is_away = false;
        loop {
            // Before the look: what is published during it brings another one.
            published.mark_unchanged();
            match self.round().await {
                Ok(told) => {
                    if std::mem::take(&mut is_away) {
                        tracing::info!(tenant = %self.tenant, "the webhook can read the log again");
                    }
                    backoff.reset();
                    // In time or not it is looked again; an error is the session's end.
                    if !told && let Ok(Err(_)) = timeout(LOOK, published.changed()).await {
                        return;
                    }
                }
                Err(LogError::Fenced) => return,
                Err(error) => {
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!(tenant = %self.tenant, %error, "the webhook waits for the log");
                    }
                    sleep(backoff.next_pause(rand::random())).await;
                }
            }
        }
    }

    /// Tells the next call; says whether there was one.
    async fn round(&mut self) -> Result<bool, LogError> {
        let had_skipped = self.feed.skipped();
        let next = self.feed.next().await;
        if let (None, Some(reason)) = (had_skipped, self.feed.skipped()) {
            self.report_skip(reason);
        }
        let Some(call) = next? else {
            self.vitals.owes(None);
            self.keep(false).await?;
            return Ok(false);
        };
        self.vitals.owes(Some((call.oldest, Instant::now())));
        if self.deliver(&call).await {
            self.feed.taken(&call);
            self.metrics.webhook.delivered(self.tenant.as_str(), call.commits);
            self.keep(true).await?;
        }
        Ok(true)
    }

    /// Calls until the receiver takes it; gives up only what has become too old to be told.
    async fn deliver(&mut self, call: &Call) -> bool {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        loop {
            let refusal = match self.receiver.call(&call.message).await {
                Ok(()) => {
                    if std::mem::take(&mut self.troubled) {
                        let receiver = self.receiver.url();
                        tracing::info!(tenant = %self.tenant, %receiver, "the webhook's receiver takes calls again");
                    }
                    return true;
                }
                Err(refusal) => refusal,
            };
            let pause = pause(&refusal, backoff.next_pause(rand::random()));
            self.report_refusal(&refusal, pause);
            sleep(pause).await;
            // While the log cannot be asked the call is still worth making.
            if self.feed.is_stale(call).await.unwrap_or(false) {
                return false;
            }
        }
    }

    /// Writes down how far everything is told.
    async fn keep(&mut self, at_once: bool) -> Result<(), LogError> {
        let Some(told) = self.feed.told() else { return Ok(()) };
        let is_due = match self.kept {
            Some((kept, _)) if kept == told => false,
            Some((_, since)) => at_once || since.elapsed() >= KEEP,
            None => true,
        };
        if is_due {
            self.feed.log().keep_delivered(self.token, told).await?;
            self.kept = Some((told, Instant::now()));
        }
        Ok(())
    }

    fn report_skip(&self, reason: &'static str) {
        self.metrics.webhook.skipped(self.tenant.as_str(), reason);
        tracing::warn!(
            tenant = %self.tenant, reason,
            "the webhook skips commits; its receiver is told so, to wake everybody"
        );
    }

    fn report_refusal(&mut self, refusal: &Refusal, pause: Duration) {
        let Refusal { reason, detail, .. } = refusal;
        self.metrics.webhook.failed(self.tenant.as_str(), reason);
        let receiver = self.receiver.url();
        if std::mem::replace(&mut self.troubled, true) {
            tracing::debug!(tenant = %self.tenant, %receiver, reason, detail, ?pause, "the webhook's call failed again");
        } else {
            tracing::warn!(
                tenant = %self.tenant, %receiver, reason, detail, ?pause,
                "the webhook's receiver did not take a call; trying again until it does"
            );
        }
    }
}

/// A receiver may ask for a longer pause than is due, up to the longest. One that is gone for good is an operator's to
/// correct, and is asked as seldom as possible until then.
fn pause(refusal: &Refusal, due: Duration) -> Duration {
    let asked = if refusal.reason == "gone" { Some(LONGEST) } else { refusal.pause };
    due.max(asked.unwrap_or_default()).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_left_alone_as_long_as_it_asks_within_bounds() {
        let pause_of = |reason, asked: Option<u64>, due| {
            let refusal = Refusal { reason, detail: String::new(), pause: asked.map(Duration::from_secs) };
            pause(&refusal, Duration::from_millis(due)).as_millis()
        };
        assert_eq!(pause_of("status", None, 0), 500);
        assert_eq!(pause_of("status", None, 7_000), 7_000);
        assert_eq!(pause_of("status", Some(20), 7_000), 20_000);
        assert_eq!(pause_of("status", Some(2), 7_000), 7_000);
        assert_eq!(pause_of("status", Some(u64::MAX), 0), 300_000);
        assert_eq!(pause_of("gone", None, 0), 300_000);
    }
}
