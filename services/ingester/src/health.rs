//! Movements of the watermark in, the tenant's readiness out.

use std::time::{Duration, Instant};

use posduif_runtime::readiness::Readiness;

/// Withdraws a tenant's readiness while its watermark stands still: heartbeats should move it.
#[derive(Debug)]
pub struct Health {
    readiness: Readiness,
    component: String,
    patience: Duration,
    moved: Option<Instant>,
    stalled: bool,
}

impl Health {
    /// A watermark that stands still for longer than `patience` is reported.
    pub fn new(readiness: Readiness, component: String, patience: Duration) -> Self {
        Health { readiness, component, patience, moved: None, stalled: false }
    }

    /// The watermark moved.
    pub fn moved(&mut self, now: Instant) {
        self.moved = Some(now);
        if std::mem::take(&mut self.stalled) {
            self.readiness.ready(&self.component);
        }
    }

    /// Looks how long ago that was.
    pub fn look(&mut self, now: Instant) {
        let since = *self.moved.get_or_insert(now);
        if !self.stalled && now.duration_since(since) > self.patience {
            self.stalled = true;
            let seconds = self.patience.as_secs();
            let reason = format!(
                "devices get nothing new: no commit became visible for {seconds} s; \
                 look for a missing synchronous standby or a locked heartbeat table"
            );
            tracing::warn!(tenant = self.component, reason, "the watermark stands still");
            self.readiness.not_ready(&self.component, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_that_stands_still_takes_the_readiness_away_until_it_moves() {
        let readiness = Readiness::default();
        readiness.ready("t");
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut health = Health::new(readiness.clone(), "t".into(), 3 * second);
        health.look(start);
        health.look(start + 3 * second);
        assert!(readiness.report().ready);
        health.look(start + 4 * second);
        assert!(!readiness.report().ready);
        health.moved(start + 5 * second);
        assert!(readiness.report().ready);
    }
}
