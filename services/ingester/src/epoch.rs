//! What is known of server, slot and log in, whether the log can go on out; no I/O.

use posduif_changelog::LogState;
use posduif_model::{Epoch, Lsn, rule::RulesHash};

/// What an ingester finds when it has taken over a tenant.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    pub system: &'a str,
    pub timeline: u32,
    /// Where the server's history left the log's timeline, if that is another one and known to it.
    pub left_log_timeline: Option<Lsn>,
    /// How far the server's WAL is flushed.
    pub flushed: Lsn,
    /// Whether the slot had to be created, and why.
    pub new_slot: Option<&'a str>,
    /// The slot's confirmed position.
    pub confirmed: Lsn,
    /// The epoch that the tenant database knows.
    pub registered: Option<Epoch>,
    pub log: Option<&'a LogState>,
    /// The newest entry of the commit log.
    pub newest_commit: Option<Lsn>,
    /// Whether PostgreSQL still has the newest heartbeat row that the log knows.
    pub heartbeat_found: bool,
    pub rules: &'a RulesHash,
    /// The fingerprint of publication and tables.
    pub tables: &'a str,
    /// Whether what the tables are stored in follows from what it was, with nothing unheard between.
    pub storage_follows: bool,
}

/// Why positions of the log so far cannot be compared with new ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    NewSlot(String),
    LogMissing,
    /// The database and the log name different epochs: one of them was restored, or an opening was cut short.
    NotRegistered,
    OtherSystem,
    /// The server's history does not hold all of the log's.
    TimelineForked {
        log: u32,
        server: u32,
    },
    /// PostgreSQL has forgotten WAL that the log no longer has.
    LogBehindSlot,
    /// The server lacks WAL that the log has.
    ServerBehindLog,
    /// The server's disk went back in time.
    HeartbeatLost,
    /// The commit log lacks what its watermark says.
    CommitsLost,
    /// An earlier session found that the log cannot be continued.
    Broken(String),
    RulesChanged,
    /// Nobody noted what changed since the newest change that the log has.
    GapUnknown(&'static str),
    /// A table or the publication was altered: rows may have changed without a message.
    TablesChanged,
}

/// Every word of [`Reason::describe`]: the values of a metric's label.
pub const WORDS: [&str; 13] = [
    "new_slot",
    "broken",
    "gap_unknown",
    "log_missing",
    "not_registered",
    "other_system",
    "timeline_forked",
    "log_behind_slot",
    "server_behind_log",
    "heartbeat_lost",
    "commits_lost",
    "tables_changed",
    "rules_changed",
];

impl Reason {
    /// A short constant word for metrics, and a sentence for people.
    pub fn describe(&self) -> (&'static str, String) {
        let (word, sentence) = match self {
            Reason::NewSlot(why) => return ("new_slot", format!("the replication slot was created ({why})")),
            Reason::TimelineForked { log, server } => {
                let why = match server < log {
                    true => "a former primary is back, or an older backup was restored",
                    false => {
                        "a standby was promoted that lacked some of it, or PostgreSQL was recovered to an earlier point"
                    }
                };
                return (
                    "timeline_forked",
                    format!(
                        "the server is on timeline {server}, which left what the log has of timeline {log}: {why}"
                    ),
                );
            }
            Reason::Broken(why) => return ("broken", format!("the log could not be continued: {why}")),
            Reason::GapUnknown(why) => {
                return (
                    "gap_unknown",
                    format!("what changed since the log's newest change is not known: {why}"),
                );
            }
            Reason::LogMissing => ("log_missing", "Redis has no log for this tenant"),
            Reason::NotRegistered => ("not_registered", "database and log name different epochs"),
            Reason::OtherSystem => ("other_system", "the database lives in another PostgreSQL cluster now"),
            Reason::LogBehindSlot => ("log_behind_slot", "Redis lost changes that PostgreSQL no longer has"),
            Reason::ServerBehindLog => ("server_behind_log", "PostgreSQL lost changes that the log has"),
            Reason::HeartbeatLost => (
                "heartbeat_lost",
                "the server lacks the log's newest heartbeat: its disk went back, or another copy took its place",
            ),
            Reason::CommitsLost => ("commits_lost", "the commit log ends below its watermark"),
            Reason::TablesChanged => ("tables_changed", "a synced table or the publication was altered"),
            Reason::RulesChanged => ("rules_changed", "sync.tables changed what devices see"),
        };
        (word, sentence.to_owned())
    }
}

/// What became of the server since the log was last read from it, as the end of a sentence.
fn moved(found: &Evidence<'_>) -> String {
    match found.log {
        Some(log) if log.system != found.system => {
            "; it is another PostgreSQL cluster than the log's".to_owned()
        }
        Some(log) if log.timeline != found.timeline => format!(
            "; the server was promoted or recovered: it is on timeline {}, the log on {}",
            found.timeline, log.timeline
        ),
        _ => String::new(),
    }
}

/// Decides whether the log goes on; `None` means that it does.
pub fn verdict(found: &Evidence<'_>) -> Option<Reason> {
    if let Some(why) = found.new_slot {
        return Some(Reason::NewSlot(format!("{why}{}", moved(found))));
    }
    let Some(log) = found.log else {
        return Some(Reason::LogMissing);
    };
    // Entries above the watermark count too: they were decoded, so they were in the WAL of the server they came from.
    let lacks = |reach: Lsn| reach < log.watermark.end || reach <= log.top;
    let newest = found.newest_commit.unwrap_or(log.base);
    let forked = log.timeline != found.timeline && found.left_log_timeline.is_none_or(lacks);
    [
        (found.registered != Some(log.epoch), Reason::NotRegistered),
        (log.system != found.system, Reason::OtherSystem),
        (forked, Reason::TimelineForked { log: log.timeline, server: found.timeline }),
        (log.watermark.end < found.confirmed, Reason::LogBehindSlot),
        (lacks(found.flushed), Reason::ServerBehindLog),
        (log.heartbeat.is_some() && !found.heartbeat_found, Reason::HeartbeatLost),
        (newest < log.watermark.commit, Reason::CommitsLost),
        (log.rules != *found.rules, Reason::RulesChanged),
        (log.tables != found.tables || !found.storage_follows, Reason::TablesChanged),
    ]
    .into_iter()
    .find_map(|(broken, reason)| broken.then_some(reason))
    .or_else(|| log.broken.clone().map(Reason::Broken))
}

#[cfg(test)]
mod tests {
    use posduif_changelog::{Heartbeat, Watermark};

    use super::*;

    fn log() -> LogState {
        LogState {
            epoch: Epoch::from_random(1),
            base: Lsn::new(100),
            watermark: Watermark { commit: Lsn::new(200), end: Lsn::new(210) },
            floor: Lsn::new(100),
            compacted: Lsn::ZERO,
            top: Lsn::new(220),
            broken: None,
            tables: String::new(),
            rules: RulesHash::from_stored("r"),
            unready_below: None,
            heartbeat: Some(Heartbeat { sequence: 1, nonce: 2 }),
            system: "s".into(),
            timeline: 1,
            supply: posduif_changelog::Supply::default(),
        }
    }

    /// The verdict on a healthy restart after `spoil` has made it less so.
    fn judged(spoil: impl Fn(&mut LogState, &mut Evidence<'_>)) -> Option<Reason> {
        let rules = RulesHash::from_stored("r");
        let mut log = log();
        let mut found = Evidence {
            system: "s",
            timeline: 1,
            left_log_timeline: None,
            flushed: Lsn::new(300),
            new_slot: None,
            confirmed: Lsn::new(150),
            registered: Some(log.epoch),
            log: None,
            newest_commit: Some(Lsn::new(220)),
            heartbeat_found: true,
            rules: &rules,
            tables: "",
            storage_follows: true,
        };
        spoil(&mut log, &mut found);
        let found = Evidence { log: Some(&log), ..found };
        let reason = verdict(&found);
        assert!(reason.iter().all(|reason| WORDS.contains(&reason.describe().0)), "{reason:?} has no word");
        reason
    }

    #[test]
    fn a_restart_with_everything_in_place_goes_on() {
        assert_eq!(judged(|_, _| ()), None);
        assert_eq!(judged(|_, found| found.confirmed = Lsn::new(210)), None);
    }

    #[test]
    fn each_break_of_history_opens_an_epoch() {
        assert_eq!(judged(|_, f| f.new_slot = Some("lost")), Some(Reason::NewSlot("lost".into())));
        let lost = judged(|_, f| (f.new_slot, f.timeline) = (Some("lost"), 2)).unwrap().describe().1;
        assert!(lost.contains("lost") && lost.contains("timeline 2"), "{lost}");
        assert_eq!(judged(|_, f| f.registered = Some(Epoch::from_random(9))), Some(Reason::NotRegistered));
        assert_eq!(judged(|_, f| f.registered = None), Some(Reason::NotRegistered));
        assert_eq!(judged(|_, f| f.system = "other"), Some(Reason::OtherSystem));
        assert_eq!(judged(|_, f| f.confirmed = Lsn::new(211)), Some(Reason::LogBehindSlot));
        assert_eq!(judged(|_, f| f.flushed = Lsn::new(220)), Some(Reason::ServerBehindLog));
        assert_eq!(judged(|_, f| f.tables = "altered"), Some(Reason::TablesChanged));
        assert_eq!(judged(|_, f| f.storage_follows = false), Some(Reason::TablesChanged));
        assert_eq!(judged(|log, _| log.broken = Some("why".into())), Some(Reason::Broken("why".into())));
        assert_eq!(judged(|_, f| f.heartbeat_found = false), Some(Reason::HeartbeatLost));
        assert_eq!(judged(|_, f| f.newest_commit = Some(Lsn::new(199))), Some(Reason::CommitsLost));
        assert_eq!(judged(|_, f| f.newest_commit = None), Some(Reason::CommitsLost));
        assert_eq!(judged(|log, _| log.rules = RulesHash::from_stored("x")), Some(Reason::RulesChanged));
    }

    #[test]
    fn a_promoted_standby_that_has_all_of_the_log_goes_on() {
        let promoted = |left: Option<u64>| {
            judged(move |_, found| {
                found.timeline = 2;
                found.left_log_timeline = left.map(Lsn::new);
            })
        };
        assert_eq!(promoted(Some(221)), None);
        // The watermark is reached, but a stored commit above it is not: it never happened.
        let forked = Some(Reason::TimelineForked { log: 1, server: 2 });
        assert_eq!(promoted(Some(220)), forked);
        assert_eq!(promoted(Some(209)), forked);
        assert_eq!(promoted(None), forked);
    }

    #[test]
    fn a_former_primary_is_told_from_a_promoted_standby() {
        let back = judged(|log, found| {
            (log.timeline, found.timeline) = (3, 2);
            found.left_log_timeline = None;
        });
        let (word, sentence) = back.unwrap().describe();
        assert_eq!(word, "timeline_forked");
        assert!(sentence.contains("timeline 2") && sentence.contains("former primary"), "{sentence}");
    }

    #[test]
    fn without_a_log_there_is_nothing_to_go_on_with() {
        let rules = RulesHash::from_stored("r");
        let found = Evidence {
            system: "s",
            timeline: 1,
            left_log_timeline: None,
            flushed: Lsn::ZERO,
            new_slot: None,
            confirmed: Lsn::ZERO,
            registered: None,
            log: None,
            newest_commit: None,
            heartbeat_found: true,
            rules: &rules,
            tables: "",
            storage_follows: true,
        };
        assert_eq!(verdict(&found), Some(Reason::LogMissing));
    }
}
