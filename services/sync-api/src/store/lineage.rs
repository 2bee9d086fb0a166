//! The log's states in, whether a connection leads to the server that the log follows out; no I/O.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use posduif_changelog::LogState;
use posduif_model::Epoch;

/// Which server of a tenant's the log is of, as far as this replica has heard.
///
/// After a fail-over the former primary may live on, and connections to it as well: what is read or written there is of a
/// history that nobody follows.
#[derive(Debug, Default)]
pub struct Lineage(Mutex<Option<Heard>>);

#[derive(Clone, Copy, Debug)]
struct Heard {
    epoch: Epoch,
    timeline: u32,
    /// When it became so: connections made before may lead to the server before.
    since: Instant,
}

impl Lineage {
    pub fn hear(&self, log: &LogState, now: Instant) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |heard: &Heard| (heard.epoch, heard.timeline) == (log.epoch, log.timeline);
        if heard.as_ref().is_some_and(is_known) {
            return;
        }
        if heard.is_some() {
            tracing::info!(
                epoch = %log.epoch, timeline = log.timeline,
                "the log goes on in another epoch or timeline; connecting to PostgreSQL anew"
            );
        }
        *heard = Some(Heard { epoch: log.epoch, timeline: log.timeline, since: now });
    }

    /// Whether a connection was made before the log's newest server was known.
    pub fn predates(&self, connected: Instant) -> bool {
        self.heard().is_some_and(|heard| connected < heard.since)
    }

    /// Whether a server on this timeline was replaced. One that is ahead was promoted, and the ingester has not heard of it yet.
    pub fn has_left(&self, timeline: u32) -> bool {
        self.heard().is_some_and(|heard| timeline < heard.timeline)
    }

    fn heard(&self) -> Option<Heard> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use posduif_changelog::Watermark;
    use posduif_model::{Lsn, rule::RulesHash};

    use super::*;

    fn log(epoch: u128, timeline: u32) -> LogState {
        LogState {
            epoch: Epoch::from_random(epoch),
            base: Lsn::ZERO,
            watermark: Watermark { commit: Lsn::ZERO, end: Lsn::ZERO },
            floor: Lsn::ZERO,
            compacted: Lsn::ZERO,
            top: Lsn::ZERO,
            broken: None,
            tables: String::new(),
            rules: RulesHash::from_stored("r"),
            unready_below: None,
            heartbeat: None,
            system: "s".into(),
            timeline,
            supply: posduif_changelog::Supply::default(),
        }
    }

    #[test]
    fn connections_are_good_until_the_log_follows_another_server() {
        let (lineage, start) = (Lineage::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        assert!(!lineage.predates(start) && !lineage.has_left(1), "nothing is known yet");
        lineage.hear(&log(1, 1), at(1));
        lineage.hear(&log(1, 1), at(3));
        assert!(!lineage.predates(at(2)), "nothing has changed");
        for (place, other) in (4..).zip([log(1, 2), log(2, 2)]) {
            lineage.hear(&other, at(place));
            assert!(lineage.predates(at(3)) && !lineage.predates(at(place)));
        }
        assert!(lineage.has_left(1) && !lineage.has_left(2) && !lineage.has_left(3));
        // An operator who goes back on purpose leads the log there first.
        lineage.hear(&log(3, 1), at(9));
        assert!(!lineage.has_left(1));
    }
}
