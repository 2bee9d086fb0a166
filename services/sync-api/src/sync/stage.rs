//! A cursor and the state of the log in, what to read next out; no I/O.

use posduif_changelog::LogState;
use posduif_model::{
    Lsn,
    cursor::{Cursor, Goal, LastRow, Resume},
    rule::RulesHash,
};

use super::SyncError;

/// Where the device says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// It holds nothing, or nothing it trusts.
    Start,
    Cursor(Cursor),
}

/// What is read for the next page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The device holds all that may be seen.
    Nothing,
    /// The log after `after`, up to `goal` where earlier pages set one; with `replay` it goes over a snapshot's tables.
    Log { after: Lsn, replay: Option<Replay>, goal: Option<Goal> },
    /// Table pages of the snapshot that began at `from`.
    Tables { from: Lsn, part: usize, after: Option<LastRow> },
    /// The tables are out: mark the WAL, wait for the log, replay it from `from` on.
    Mark { from: Lsn },
}

/// What a replay must reach before the device may use its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// No table page saw anything at or after this position of the WAL.
    pub until: Lsn,
    /// Where the replay began.
    pub from: Lsn,
    /// Whether the snapshot so far holds messages whose arrival is to be noted.
    pub awaits: bool,
}

/// Decides what the device gets.
///
/// # Errors
/// `Expired` where the log no longer continues what the device holds, `NotReady` where the log cannot tell yet.
pub fn plan(since: &Since, state: &LogState, rules: &RulesHash) -> Result<Plan, SyncError> {
    if state.rules != *rules {
        return Err(SyncError::NotReady("the log is written by other rules than this server's"));
    }
    let cursor = match since {
        Since::Start if state.unready_below.is_some() => {
            return Err(SyncError::NotReady("transactions older than the log are still running"));
        }
        Since::Start => return Ok(Plan::Tables { from: state.watermark.commit, part: 0, after: None }),
        Since::Cursor(cursor) => cursor,
    };
    let from = match &cursor.at {
        Resume::Stream { commit, .. } | Resume::Replay { commit, .. } => *commit,
        Resume::Table { from, .. } | Resume::Mark { from } => *from,
    };
    if cursor.epoch != state.epoch || cursor.rules != state.rules || from < state.floor {
        return Err(SyncError::Expired);
    }
    // What a page showed, a standby that was promoted since need not have got, nor the ingester have decoded.
    let shows_tables = matches!(cursor.at, Resume::Table { .. } | Resume::Mark { .. });
    if shows_tables && cursor.timeline != state.timeline {
        return Err(SyncError::Expired);
    }
    match &cursor.at {
        Resume::Stream { commit, .. } if *commit >= state.watermark.commit => Ok(Plan::Nothing),
        Resume::Stream { commit, goal, .. } => Ok(Plan::Log { after: *commit, replay: None, goal: *goal }),
        Resume::Replay { until, .. } if state.watermark.end < *until => {
            Err(SyncError::NotReady("the log fell behind the snapshot and is being written again"))
        }
        Resume::Replay { commit, until, from, awaits, goal } => {
            let replay = Replay { until: *until, from: *from, awaits: *awaits };
            Ok(Plan::Log { after: *commit, replay: Some(replay), goal: *goal })
        }
        Resume::Table { from, part, after } => {
            Ok(Plan::Tables { from: *from, part: *part, after: after.clone() })
        }
        Resume::Mark { from } => Ok(Plan::Mark { from: *from }),
    }
}

#[cfg(test)]
mod tests {
    use posduif_changelog::Watermark;
    use posduif_model::Epoch;

    use super::*;

    fn rules() -> RulesHash {
        RulesHash::from_stored("r")
    }

    fn state() -> LogState {
        LogState {
            epoch: Epoch::from_random(1),
            base: Lsn::new(10),
            watermark: Watermark { commit: Lsn::new(100), end: Lsn::new(110) },
            floor: Lsn::new(50),
            compacted: Lsn::ZERO,
            top: Lsn::ZERO,
            broken: None,
            tables: String::new(),
            rules: rules(),
            unready_below: None,
            heartbeat: None,
            system: "s".into(),
            timeline: 1,
            supply: posduif_changelog::Supply::default(),
        }
    }

    fn at(at: Resume) -> Since {
        Since::Cursor(Cursor { epoch: Epoch::from_random(1), rules: rules(), timeline: 1, at })
    }

    fn replaying(commit: u64, until: u64) -> Since {
        let [commit, until, from] = [commit, until, 55].map(Lsn::new);
        at(Resume::Replay { commit, until, from, awaits: true, goal: None })
    }

    fn stages(commit: u64) -> [Since; 4] {
        let lsn = Lsn::new(commit);
        [
            at(Resume::Stream { commit: lsn, confirms: None, goal: None }),
            at(Resume::Table { from: lsn, part: 1, after: None }),
            at(Resume::Mark { from: lsn }),
            replaying(commit, 110),
        ]
    }

    #[test]
    fn every_stage_expires_below_the_floor_and_in_another_epoch() {
        for since in stages(49) {
            assert!(matches!(plan(&since, &state(), &rules()), Err(SyncError::Expired)), "{since:?}");
        }
        for since in stages(50) {
            assert!(plan(&since, &state(), &rules()).is_ok(), "{since:?}");
            let other = LogState { epoch: Epoch::from_random(2), ..state() };
            assert!(matches!(plan(&since, &other, &rules()), Err(SyncError::Expired)), "{since:?}");
        }
    }

    #[test]
    fn a_fail_over_ends_a_snapshot_in_its_tables_and_nothing_else() {
        let promoted = LogState { timeline: 2, ..state() };
        let is_expired =
            stages(60).map(|since| matches!(plan(&since, &promoted, &rules()), Err(SyncError::Expired)));
        assert_eq!(is_expired, [false, true, true, false]);
    }

    #[test]
    fn a_cursor_of_other_rules_expires_and_a_server_with_other_rules_refuses_to_serve() {
        for since in stages(60) {
            let other = RulesHash::from_stored("other");
            let moved = LogState { rules: other.clone(), ..state() };
            assert!(matches!(plan(&since, &moved, &other), Err(SyncError::Expired)), "{since:?}");
            assert!(matches!(plan(&since, &state(), &other), Err(SyncError::NotReady(_))), "{since:?}");
        }
    }

    #[test]
    fn a_device_at_or_beyond_the_watermark_gets_nothing() {
        for commit in [100, 101] {
            let since = at(Resume::Stream { commit: Lsn::new(commit), confirms: None, goal: None });
            assert_eq!(plan(&since, &state(), &rules()).unwrap(), Plan::Nothing);
        }
    }

    #[test]
    fn a_snapshot_begins_at_the_watermark_once_the_epoch_is_ready() {
        let tables = Plan::Tables { from: Lsn::new(100), part: 0, after: None };
        assert_eq!(plan(&Since::Start, &state(), &rules()).unwrap(), tables);
        let unready = LogState { unready_below: Some(7), ..state() };
        assert!(matches!(plan(&Since::Start, &unready, &rules()), Err(SyncError::NotReady(_))));
    }

    #[test]
    fn a_replay_waits_for_a_log_that_fell_behind_its_tables() {
        let since = replaying(60, 111);
        assert!(matches!(plan(&since, &state(), &rules()), Err(SyncError::NotReady(_))));
        let since = replaying(100, 110);
        let replay = Some(Replay { until: Lsn::new(110), from: Lsn::new(55), awaits: true });
        assert_eq!(
            plan(&since, &state(), &rules()).unwrap(),
            Plan::Log { after: Lsn::new(100), replay, goal: None }
        );
    }
}
