//! What the database and the log say in, what a fail-over did or would cost out; no I/O.

use super::{
    report::{DatabaseFacts, LogFacts, SlotFacts},
    verdict::Notes,
};

const RUNBOOK: &str = "docs/runbooks/postgresql-fail-over.md";

/// Of a standby: whether it could be promoted without that devices begin again.
pub fn judge_standby(slot: Option<&SlotFacts>, name: &str, notes: &mut Notes) {
    let usable =
        slot.is_some_and(|slot| slot.synced && !slot.temporary && slot.invalidation_reason.is_none());
    if !usable {
        notes.warning(
            "slot_not_synced",
            format!(
                "this standby has no usable copy of slot {name}: were it promoted now, all tables would be compared, or \
                 every device would take a snapshot; set sync_replication_slots, hot_standby_feedback, primary_slot_name and the dbname in primary_conninfo, \
                 and give it half a minute; see {RUNBOOK}"
            ),
        );
    }
}

/// Of a primary: whether the ingester goes on, and whether its slot would survive.
pub fn judge_primary(database: &DatabaseFacts, notes: &mut Notes) {
    for name in &database.synchronized_standby_slots {
        if !database.standbys.iter().any(|standby| standby.slot == *name && standby.active) {
            notes.problem(
                "standby_away",
                format!(
                    "synchronized_standby_slots names {name}, which no standby uses: PostgreSQL gives the ingester \
                     nothing new until one does; start that standby, or take the name out and reload"
                ),
            );
        }
    }
    if !database.standbys.is_empty() && database.synchronized_standby_slots.is_empty() {
        let names: Vec<&str> = database.standbys.iter().map(|standby| standby.slot.as_str()).collect();
        notes.warning(
            "standby_not_waited_for",
            format!(
                "the log may get ahead of the standbys ({}): whichever is promoted then, every device takes a snapshot; \
                 name the slot of the one to be promoted in synchronized_standby_slots, see {RUNBOOK}",
                names.join(", ")
            ),
        );
    }
    if let Some(slot) = database.slot.as_ref().filter(|slot| !slot.failover) {
        notes.warning(
            "slot_without_failover",
            format!(
                "standbys keep no copy of slot {}: after a promotion all tables are compared, or every device takes a \
                 snapshot; restart posduif-ingester, its log says why the server refuses",
                slot.name
            ),
        );
    }
}

/// Whether the log is of the server that was asked.
pub fn judge_lineage(database: &DatabaseFacts, log: &LogFacts, notes: &mut Notes) {
    if database.in_recovery {
        return;
    }
    if (&database.system, database.timeline) != (&log.system, i64::from(log.timeline)) {
        let (server, of_log) = (database.timeline, log.timeline);
        let what = match (database.system == log.system, server < i64::from(of_log)) {
            (false, _) => {
                "it is another PostgreSQL cluster than the one that the log was read from".to_owned()
            }
            (true, true) => {
                format!("the log has followed another server to timeline {of_log}: this one was replaced")
            }
            (true, false) => {
                format!("it was promoted or recovered since, and the log is still on timeline {of_log}")
            }
        };
        notes.problem(
            "other_server",
            format!(
                "the server is on timeline {server}, and {what}; if it is the right one, posduif-ingester follows it \
                 within seconds, or its /readyz says why not; else lead the url to the right one, see {RUNBOOK}"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::StandbyFacts, *};

    fn standby(slot: &str, active: bool) -> StandbyFacts {
        StandbyFacts { slot: slot.to_owned(), active, behind_bytes: Some(0), waited_for: false }
    }

    fn codes(judge: impl Fn(&mut Notes)) -> Vec<&'static str> {
        let mut notes = Notes::default();
        judge(&mut notes);
        notes.problems.iter().chain(&notes.warnings).map(|note| note.code).collect()
    }

    fn primary(standbys: Vec<StandbyFacts>, waits: &[&str]) -> Vec<&'static str> {
        let synchronized_standby_slots = waits.iter().map(|name| (*name).to_owned()).collect();
        let database = DatabaseFacts { standbys, synchronized_standby_slots, ..DatabaseFacts::default() };
        codes(|notes| judge_primary(&database, notes))
    }

    #[test]
    fn a_primary_says_whether_a_fail_over_is_prepared() {
        assert!(primary(vec![], &[]).is_empty(), "a server alone has nothing to prepare");
        assert!(primary(vec![standby("a", true), standby("b", false)], &["a"]).is_empty());
        assert_eq!(primary(vec![standby("a", true)], &[]), ["standby_not_waited_for"]);
        assert_eq!(primary(vec![standby("a", false)], &["a"]), ["standby_away"]);
        assert_eq!(primary(vec![standby("a", true)], &["a", "gone"]), ["standby_away"]);
    }

    #[test]
    fn a_server_that_the_log_does_not_follow_is_told() {
        let log =
            |system: &str, timeline| LogFacts { system: system.to_owned(), timeline, ..LogFacts::default() };
        let database = DatabaseFacts { system: "s".to_owned(), timeline: 2, ..DatabaseFacts::default() };
        let told = |log: &LogFacts| codes(|notes| judge_lineage(&database, log, notes));
        assert!(told(&log("s", 2)).is_empty());
        for other in [log("s", 1), log("s", 3), log("t", 2)] {
            assert_eq!(told(&other), ["other_server"]);
        }
    }
}
