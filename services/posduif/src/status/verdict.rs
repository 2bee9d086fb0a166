//! What PostgreSQL and Redis said in, problems with what to do about them out; no I/O.

use std::time::Duration;

use posduif_changelog::LogError;
use posduif_model::{Lsn, Source, TenantId};
use posduif_runtime::config::TenantConfig;

use super::{
    database, fail_over,
    log::{Log, Looked, Trouble},
    report::{DatabaseFacts, Note, SlotFacts, Standing, TenantReport},
};

/// All that is known of a tenant.
pub struct Found {
    pub database: Result<DatabaseFacts, database::Trouble>,
    pub log: Result<Looked, Trouble>,
    /// The name of the tenant's slot.
    pub slot: String,
    /// Whoever is later than this is lagging.
    pub patience: Duration,
}

/// What is no problem of a tenant that is polled.
const OF_WAL: [&str; 3] = ["slot_missing", "slot_inactive", "publication_missing"];
/// A slot is near its limit when less than this part of it is left; the ingester's readiness says the same.
const SHARE: i64 = 4;

#[derive(Default)]
pub(super) struct Notes {
    pub problems: Vec<Note>,
    pub warnings: Vec<Note>,
}

impl Notes {
    pub fn problem(&mut self, code: &'static str, message: impl Into<String>) {
        self.problems.push(Note { code, message: message.into() });
    }

    pub fn warning(&mut self, code: &'static str, message: impl Into<String>) {
        self.warnings.push(Note { code, message: message.into() });
    }
}

/// Judges one tenant. Causes come before what follows from them: the first problem is the verdict.
pub fn report(tenant: &TenantConfig, found: Found) -> TenantReport {
    let mut notes = Notes::default();
    let (mut lag_seconds, mut lag_bytes) = (None, None);
    match &found.database {
        Err(database::Trouble::Refused(error)) => notes.problem(
            "postgres_refused",
            format!("PostgreSQL refused a question: {error}; where rights are missing, run posduif migrate"),
        ),
        Err(trouble) => notes.problem(
            "postgres_unreachable",
            format!("PostgreSQL cannot be asked: {}; start it, or correct the tenant's url", chain(trouble)),
        ),
        Ok(database) => judge_database(database, &found.slot, tenant, &mut notes),
    }
    match &found.log {
        Err(Trouble::Log(LogError::Corrupt(what))) => notes.problem(
            "log_unreadable",
            format!("the log's {what} cannot be read; restart posduif-ingester, it opens a new epoch"),
        ),
        Err(trouble) => notes.problem(
            "redis_unreachable",
            format!("Redis cannot be asked: {trouble}; start it, or correct redis.url"),
        ),
        Ok(looked) => {
            judge_log(looked, found.database.as_ref().ok(), &mut notes);
            if let (Ok(database), Some(log)) = (&found.database, &looked.log) {
                if log.facts.source == Source::Polling.as_str() {
                    notes.problems.retain(|problem| !OF_WAL.contains(&problem.code));
                }
                fail_over::judge_lineage(database, &log.facts, &mut notes);
                (lag_seconds, lag_bytes) = lag(database, log);
            }
        }
    }
    if let Some(late) = lag_seconds.filter(|seconds| *seconds > found.patience.as_secs_f64()) {
        notes.problem(
            "lagging",
            format!(
                "lagging: devices get changes {late:.0} s late; see the problems above, the ingester's /readyz and \
                 docs/runbooks/ingester-lagging.md"
            ),
        );
    }
    if let Some(standing) = found.database.as_ref().ok().and_then(|database| database.standing.as_ref()) {
        heed(standing, &tenant.id, &mut notes);
    }
    TenantReport {
        tenant: tenant.id.to_string(),
        ok: notes.problems.is_empty(),
        verdict: notes.problems.first().map_or_else(|| "ok".to_owned(), |first| first.message.clone()),
        problems: notes.problems,
        warnings: notes.warnings,
        ingester: None,
        lag_seconds,
        lag_bytes,
        database: found.database.ok(),
        log: found.log.ok().and_then(|looked| Some(looked.log?.facts)),
    }
}

/// What follows from an operator's own word is no problem.
fn heed(standing: &Standing, tenant: &TenantId, notes: &mut Notes) {
    let by = standing.changed_by.as_deref().unwrap_or("somebody");
    let follows: &[&str] = match (&standing.dropped_at, &standing.paused_at) {
        (Some(since), _) => {
            let message = format!(
                "dropped at {since} by {by}; take the tenant out of the configuration, or take it up again: posduif tenant add"
            );
            notes.warning("dropped", message);
            &[
                "slot_missing",
                "slot_inactive",
                "publication_missing",
                "log_missing",
                "epoch_mismatch",
                "lagging",
            ]
        }
        (None, Some(since)) => {
            let message = format!(
                "paused since {since} by {by}; its slot keeps WAL meanwhile; posduif tenant resume {tenant} ends that"
            );
            notes.warning("paused", message);
            &["slot_inactive", "lagging"]
        }
        (None, None) => &[],
    };
    notes.problems.retain(|problem| !follows.contains(&problem.code));
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn judge_database(database: &DatabaseFacts, slot: &str, tenant: &TenantConfig, notes: &mut Notes) {
    if database.in_recovery {
        notes.problem(
            "standby",
            "the tenant's url leads to a standby; promote it, or name the primary, where slots are read",
        );
        fail_over::judge_standby(database.slot.as_ref(), slot, notes);
    } else {
        fail_over::judge_primary(database, notes);
    }
    if !database.migrated {
        notes.problem(
            "not_migrated",
            "the database is not migrated, or not to this version; run posduif migrate",
        );
    } else if !database.publication {
        notes.problem("publication_missing", "the publication does not exist; run posduif migrate");
    }
    match &database.slot {
        // Nobody reads a standby's slots; what matters of them was said.
        _ if database.in_recovery => {}
        None => notes.problem(
            "slot_missing",
            format!("there is no replication slot {slot} (yet); start posduif-ingester, it creates one"),
        ),
        Some(slot) => judge_slot(slot, tenant, notes),
    }
}

fn judge_slot(slot: &SlotFacts, tenant: &TenantConfig, notes: &mut Notes) {
    let foreign =
        slot.plugin.as_deref() != Some("pgoutput") || slot.database.as_deref() != Some(tenant.url.database());
    let lost = slot.invalidation_reason.clone().or_else(|| {
        let status = slot.wal_status.as_deref()?;
        (status == "lost").then(|| "wal_removed".to_owned())
    });
    if foreign {
        let name = &slot.name;
        notes.problem(
            "slot_foreign",
            format!("slot {name} belongs to another database or plugin; set sync.wal.slot_name"),
        );
    }
    if let Some(why) = lost {
        notes.problem(
            "slot_lost",
            format!(
                "the slot is lost: {why}; posduif-ingester replaces it and compares what changed meanwhile, or every device \
                 resyncs where that is not known. wal_removed: raise \
                 max_slot_wal_keep_size; idle_timeout: raise idle_replication_slot_timeout"
            ),
        );
        return;
    }
    if !slot.active {
        notes.problem(
            "slot_inactive",
            format!(
                "nobody follows the slot: start posduif-ingester, or look at its /readyz; PostgreSQL keeps {} bytes \
                 of WAL for it",
                slot.retained_bytes.unwrap_or(0)
            ),
        );
    }
    let near = slot.safe_wal_bytes.zip(slot.wal_limit_bytes).filter(|(safe, limit)| *safe < limit / SHARE);
    if let Some((safe, _)) = near {
        notes.problem(
            "slot_near_limit",
            format!(
                "the slot is near its limit: {safe} more bytes of WAL and it is in danger of being lost; raise \
                 max_slot_wal_keep_size, or find out why the ingester is behind"
            ),
        );
    }
}

fn judge_log(looked: &Looked, database: Option<&DatabaseFacts>, notes: &mut Notes) {
    for concern in &looked.concerns {
        notes.warning("redis_settings", concern.clone());
    }
    let Some(Log { facts, .. }) = &looked.log else {
        notes.problem(
            "log_missing",
            "Redis has no log for this tenant; posduif-ingester begins one, and every device takes a snapshot",
        );
        return;
    };
    if let Some(why) = &facts.broken {
        notes.problem(
            "log_broken",
            format!(
                "the log cannot be continued: {why}; posduif-ingester opens a new epoch once that is mended"
            ),
        );
    }
    let registered = database.and_then(|database| database.epoch.as_ref());
    if database.is_some_and(|database| database.migrated)
        && registered.is_none_or(|epoch| epoch.epoch != facts.epoch)
    {
        notes.problem(
            "epoch_mismatch",
            "database and log name different epochs: one of them was restored; posduif-ingester opens a new one",
        );
    }
    if facts.snapshots_wait {
        notes.warning(
            "snapshots_wait",
            "snapshots wait for transactions older than the log: new devices get 503; end the oldest transaction in \
             pg_stat_activity (xact_start) or pg_prepared_xacts",
        );
    }
}

/// How late and how far behind readers are. Before the first heartbeat of an epoch they are as late as it is old.
fn lag(database: &DatabaseFacts, log: &Log) -> (Option<f64>, Option<u64>) {
    let epoch = database.epoch.as_ref().map(|epoch| epoch.age_seconds);
    let seconds = database.published_age_seconds.or(epoch).map(|seconds| seconds.max(0.0));
    let end: Option<Lsn> = database.wal_end.parse().ok();
    (seconds, end.map(|end| end.get().saturating_sub(log.end.get())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> TenantConfig {
        TenantConfig::new("t".parse().unwrap(), "postgres://u@h/t".parse().unwrap())
    }

    fn slot() -> SlotFacts {
        SlotFacts {
            name: "posduif_sync_t".to_owned(),
            database: Some("t".to_owned()),
            plugin: Some("pgoutput".to_owned()),
            active: true,
            wal_status: Some("reserved".to_owned()),
            invalidation_reason: None,
            failover: true,
            synced: false,
            temporary: false,
            confirmed: None,
            retained_bytes: Some(5),
            safe_wal_bytes: Some(250),
            wal_limit_bytes: Some(1_000),
        }
    }

    fn codes(change: impl Fn(&mut SlotFacts)) -> Vec<&'static str> {
        let (mut notes, mut slot) = (Notes::default(), slot());
        change(&mut slot);
        judge_slot(&slot, &tenant(), &mut notes);
        notes.problems.iter().map(|note| note.code).collect()
    }

    #[test]
    fn every_state_of_a_slot_that_needs_an_operator_is_a_problem() {
        assert!(codes(|_| ()).is_empty());
        assert_eq!(codes(|slot| slot.active = false), ["slot_inactive"]);
        assert_eq!(codes(|slot| slot.safe_wal_bytes = Some(249)), ["slot_near_limit"]);
        assert_eq!(codes(|slot| slot.wal_status = Some("lost".to_owned())), ["slot_lost"]);
        assert_eq!(codes(|slot| slot.invalidation_reason = Some("idle_timeout".to_owned())), ["slot_lost"]);
        assert_eq!(codes(|slot| slot.database = Some("other".to_owned())), ["slot_foreign"]);
    }
}
