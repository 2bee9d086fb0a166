//! How long nobody else can have been given a tenant in, whether this process may begin to work for it out.

use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The right to try. It ends nothing: a session that runs goes on while Redis is away, because nobody else can be given
/// its tenant either; it only begins none, and ends no other's.
///
/// Time is this machine's monotonic clock, which goes on while a process is frozen.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    granted: Option<Granted>,
}

#[derive(Clone, Debug)]
struct Granted {
    until: watch::Receiver<Option<Instant>>,
    /// Cancelled when the tenant is given up or lost.
    stop: CancellationToken,
}

impl Lease {
    /// Good until the time that is told, again and again, unless it is stopped before.
    pub fn new(until: watch::Receiver<Option<Instant>>, stop: CancellationToken) -> Self {
        Lease { granted: Some(Granted { until, stop }) }
    }

    /// Whether it is good now; one that nobody granted never is.
    pub fn holds(&self) -> bool {
        self.granted.as_ref().is_some_and(|Granted { until, stop }| {
            !stop.is_cancelled() && until.borrow().is_some_and(|until| Instant::now() < until)
        })
    }

    /// Waits until it is good.
    pub async fn held(&self) {
        let Some(mut until) = self.granted.as_ref().map(|granted| granted.until.clone()) else {
            return std::future::pending().await;
        };
        while !self.holds() {
            if until.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_lease_is_good_for_its_time_until_it_is_stopped_and_never_without_a_grant() {
        let (sender, until) = watch::channel(None);
        let stop = CancellationToken::new();
        let lease = Lease::new(until, stop.clone());
        assert!(!lease.holds() && !Lease::default().holds());
        sender.send_replace(Instant::now().checked_sub(Duration::from_secs(1)));
        assert!(!lease.holds(), "it has ended");
        let waiting = tokio::spawn({
            let lease = lease.clone();
            async move { lease.held().await }
        });
        sender.send_replace(Some(Instant::now() + Duration::from_secs(60)));
        waiting.await.unwrap();
        assert!(lease.holds());
        stop.cancel();
        assert!(!lease.holds(), "it is given up");
    }
}
