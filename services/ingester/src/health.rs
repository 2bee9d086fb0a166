//! A tenant's readings in, its readiness with reasons out.

use std::time::{Duration, Instant};

use posduif_runtime::readiness::Readiness;

use crate::vitals::Readings;

/// Withdraws a tenant's readiness while its watermark stands still, and says what else an operator should see.
///
/// A heartbeat moves the watermark of the idlest tenant, so `patience` is a few of them.
#[derive(Debug)]
pub struct Health {
    readiness: Readiness,
    component: String,
    patience: Duration,
    moved: Option<Instant>,
    stalled: bool,
}

/// The parts of a tenant that have a status of their own while a session follows its WAL.
const LAG: &str = "lag";
const SNAPSHOTS: &str = "snapshots";
const SLOT: &str = "slot";
const SOURCE: &str = "source";

/// The name of a part in the readiness.
fn part(tenant: &str, name: &str) -> String {
    format!("{tenant}/{name}")
}

/// Where the slot's status stands.
pub fn slot_component(tenant: &str) -> String {
    part(tenant, SLOT)
}

/// Where it stands when the changes come from elsewhere than is wanted.
pub fn source_component(tenant: &str) -> String {
    part(tenant, SOURCE)
}

/// Forgets the parts of a tenant that no session looks at: what they said holds no longer.
pub fn forget_parts(readiness: &Readiness, tenant: &str) {
    for name in [LAG, SNAPSHOTS, SLOT] {
        readiness.forget(&part(tenant, name));
    }
}

impl Health {
    /// A watermark that stands still for longer than `patience` is reported, and so is one that is older than that.
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

    /// Looks how long ago that was, and at the rest.
    pub fn look(&mut self, now: Instant, readings: &Readings) {
        let since = *self.moved.get_or_insert(now);
        if !self.stalled && now.duration_since(since) > self.patience {
            self.stalled = true;
            let seconds = self.patience.as_secs();
            let reason = format!(
                "devices get nothing new: no commit became visible for {seconds} s; \
                 look for a missing synchronous standby, one of synchronized_standby_slots that is away, or a locked \
                 heartbeat table"
            );
            tracing::warn!(tenant = self.component, reason, "the watermark stands still");
            self.readiness.not_ready(&self.component, reason);
        }
        let late = readings.heartbeat_lag.filter(|lag| *lag > self.patience).map(|lag| {
            format!(
                "devices get changes {} s late; if it does not fall, look for a huge transaction, a slow Redis or a \
                 busy PostgreSQL",
                lag.as_secs()
            )
        });
        self.report(LAG, late);
        let waits = readings.unready.then(|| {
            "snapshots wait for transactions older than the log: new devices get 503; end the oldest transaction in \
             pg_stat_activity (xact_start) or pg_prepared_xacts"
                .to_owned()
        });
        self.report(SNAPSHOTS, waits);
    }

    fn report(&self, name: &str, concern: Option<String>) {
        match concern {
            Some(reason) => self.readiness.degraded(part(&self.component, name), reason),
            None => self.readiness.ready(part(&self.component, name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use posduif_runtime::readiness::Status;

    use super::*;
    use crate::vitals::Vitals;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_watermark_that_stands_still_takes_the_readiness_away_until_it_moves() {
        let readiness = Readiness::default();
        readiness.ready("t");
        let start = Instant::now();
        let readings = Vitals::new(start).read(start);
        let mut health = Health::new(readiness.clone(), "t".into(), 3 * SECOND);
        health.look(start, &readings);
        health.look(start + 3 * SECOND, &readings);
        assert!(readiness.report().ready);
        health.look(start + 4 * SECOND, &readings);
        assert!(!readiness.report().ready);
        health.moved(start + 5 * SECOND);
        assert!(readiness.report().ready);
    }

    #[test]
    fn lag_and_waiting_snapshots_are_told_with_what_to_do_and_forgotten_with_the_session() {
        let readiness = Readiness::default();
        let start = Instant::now();
        let readings =
            Readings { heartbeat_lag: Some(4 * SECOND), unready: true, ..Vitals::new(start).read(start) };
        let mut health = Health::new(readiness.clone(), "t".into(), 3 * SECOND);
        health.look(start, &readings);
        let report = readiness.report();
        let reason = |name: &str| match &report.components[name] {
            Status::Degraded { reason } => reason.clone(),
            other => panic!("{name} is {other:?}"),
        };
        assert!(reason("t/lag").contains("4 s late"), "{}", reason("t/lag"));
        assert!(reason("t/snapshots").contains("pg_stat_activity"), "{}", reason("t/snapshots"));
        health.look(start, &Readings { heartbeat_lag: Some(3 * SECOND), unready: false, ..readings });
        assert!(readiness.report().components.values().all(|status| *status == Status::Ready));
        forget_parts(&readiness, "t");
        assert!(readiness.report().components.is_empty());
    }
}
