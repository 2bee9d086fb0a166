//! A tenant's slot, log and database in, the right to write its log out.

use std::sync::Arc;

use posduif_changelog::{LogError, LogState, LogWriter, Supply, Watermark, durability};
use posduif_model::{Epoch, Lsn, Source};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::{
    PATIENCE, Session, SessionError,
    eviction::{self, Hold},
    promotion,
};
use crate::{
    capture,
    catalog::Catalog,
    epoch::{Evidence, Reason, verdict},
    guard::Guard,
    heartbeat, link,
    lookout::Lookout,
    storage::Storage,
    transaction::LogEnd,
    visibility::Snapshot,
    wal::{Halves, ReplicationConnection, Slot, System, WalError},
};

/// A tenant that this process may write for.
pub struct Taken {
    pub state: LogState,
    pub end: LogEnd,
    pub token: i64,
    /// Where the slot stands.
    pub confirmed: Lsn,
    pub writer: LogWriter,
    pub halves: Halves,
    pub guard: Guard,
    pub catalog: Catalog,
    pub lookout: Lookout,
}

/// Holds the slot, then draws a fencing token, then looks at the log: in this order nobody else can be writing.
pub async fn take_over(session: &Session, sql: &Client) -> Result<Taken, SessionError> {
    let name = session.wal.slot_name(session.tenant.url.database());
    let mut replication = session.replication().await?;
    let system = within(replication.identify_system()).await?;
    eviction::free(session, sql, Hold::Slot(&name)).await?;
    let new_slot = ensure_slot(session, sql, &mut replication, &name).await?;
    let guard = Guard { slot: name.clone(), walsender: replication.pid() };
    let halves = within(replication.start(&name, &session.wal.publication)).await?;
    guard.check(sql).await?;
    let holds = async { Ok(guard.check(sql).await?) };
    let (token, mut writer) = claim(session, sql, holds).await?;
    let confirmed = match Slot::find(sql, &name).await? {
        Some(slot) => slot.confirmed,
        None => return Err(SessionError::Closed),
    };
    // A server that drops what it likes is not written to at all; what else it may lack, the upkeep reports.
    durability::concerns(writer.connection()).await?;
    let log = match readable(&mut writer).await {
        Err(LogError::Corrupt(what)) => {
            tracing::error!(tenant = %session.tenant.id, what, "the log's state cannot be read");
            None
        }
        log => log?,
    };
    // Its predecessor may have handed over to polling while this one waited for the slot.
    if log.as_ref().is_some_and(|log| log.supply.source == Source::Polling) {
        return Err(SessionError::SourceChanged);
    }
    // Only now: a predecessor may have come to know new partitions until then.
    let catalog = Catalog::load(sql, &session.rules, &session.wal.publication, Source::Wal).await?;
    let found = Found { system: &system, new_slot, confirmed, log: log.as_ref(), catalog: &catalog };
    let reason = judge(session, sql, &mut writer, &found).await?;
    let state = match (reason, log) {
        (None, Some(log)) if log.timeline != system.timeline => {
            promotion::follow(sql, &mut writer, log, system.timeline).await?
        }
        (None, Some(log)) => log,
        (reason, _) => {
            let opening = Opening { token, system: &system, catalog: &catalog, source: Source::Wal };
            open_epoch(session, sql, &mut writer, &opening, &reason.unwrap_or(Reason::LogMissing)).await?
        }
    };
    let lookout = Lookout {
        rules: session.rules.clone(),
        publication: session.wal.publication.clone(),
        source: Source::Wal,
        epoch: state.epoch,
        token,
        fingerprint: catalog.fingerprint().to_owned(),
        storage: Arc::default(),
    };
    lookout.keep(sql, catalog.storage()).await?;
    let polled = match &state.supply.polled {
        Some((below, snapshot)) => Some((*below, snapshot.parse::<Snapshot>()?)),
        None => None,
    };
    let end = match writer.newest_commit(&state.epoch).await? {
        Some(record) => LogEnd { newest: record.commit, written: record.written, polled },
        None => LogEnd { newest: state.base, written: 0, polled },
    };
    session.metrics.take_overs.with_label_values(&[session.tenant.id.as_str()]).inc();
    tracing::info!(
        tenant = %session.tenant.id, slot = name, epoch = %state.epoch, token, %confirmed, newest = %end.newest,
        watermark = %state.watermark.commit, "took the tenant over"
    );
    Ok(Taken { state, end, token, confirmed, writer, halves, guard, catalog, lookout })
}

/// The state of a log that can be gone on with, as far as a session reads it at once.
pub(super) async fn readable(writer: &mut LogWriter) -> Result<Option<LogState>, LogError> {
    let log = writer.state().await?;
    if let Some(log) = &log {
        writer.newest_commit(&log.epoch).await?;
    }
    Ok(log)
}

/// A command of the replication connection that PostgreSQL answers at once.
pub(super) async fn within<T>(command: impl Future<Output = Result<T, WalError>>) -> Result<T, SessionError> {
    Ok(timeout(PATIENCE, command).await.map_err(|_| SessionError::Silent)??)
}

/// Creates the slot where it is missing or lost; returns why it had to.
async fn ensure_slot(
    session: &Session,
    sql: &Client,
    replication: &mut ReplicationConnection,
    name: &str,
) -> Result<Option<String>, SessionError> {
    let tenant = &session.tenant.id;
    let (why, lost) = match Slot::find(sql, name).await? {
        None => ("there was none".to_owned(), false),
        Some(slot) if slot.plugin != "pgoutput" || slot.database != session.tenant.url.database() => {
            return Err(SessionError::ForeignSlot(name.to_owned()));
        }
        Some(Slot { fault: None, failover, .. }) => {
            if !failover && let Err(error) = within(replication.keep_on_failover(name)).await {
                tracing::warn!(%tenant, slot = name, %error, "the slot will not survive a fail-over of PostgreSQL");
            }
            return Ok(None);
        }
        Some(Slot { fault: Some(fault), .. }) => (fault.0, true),
    };
    check_recreations(sql, name, &why).await?;
    if lost {
        tracing::error!(%tenant, slot = name, reason = why, "the slot is lost; replacing it");
        within(replication.drop_slot(name)).await?;
    }
    tracing::info!(%tenant, slot = name, why, "creating the slot; this waits for running transactions to end");
    let waits = "creating the replication slot, which waits for every running transaction to end; if it takes long, look \
                 for the oldest xact_start in pg_stat_activity";
    session.readiness.not_ready(tenant.to_string(), waits);
    replication.create_slot(name).await?;
    session.metrics.slots_created.with_label_values(&[tenant.as_str()]).inc();
    Ok(Some(why))
}

/// Slots that may be created within an hour in place of one that was lost: every one makes all devices resync, or is a scan
/// of all tables.
const MOST_SLOTS: i64 = 4;

/// Refuses to create slot after slot on a server that keeps losing them.
pub(super) async fn check_recreations(sql: &Client, name: &str, why: &str) -> Result<(), SessionError> {
    let count = "SELECT count(*) FROM posduif_engine.epoch_history
                  WHERE reason IN ('new_slot', 'slot_compared') AND opened_at > now() - interval '1 hour'";
    let created: i64 = sql.query_one(count, &[]).await?.get(0);
    match created < MOST_SLOTS {
        true => Ok(()),
        false => {
            Err(SessionError::SlotKeepsVanishing { slot: name.to_owned(), created, why: why.to_owned() })
        }
    }
}

/// Draws tokens from the database until Redis takes one.
///
/// A restored or promoted database may hand out numbers that Redis has seen already. Whoever holds the slot, or
/// the lock of those who poll, is the tenant's ingester, so it may move the sequence past them; `holds` asks once more.
pub(super) async fn claim(
    session: &Session,
    sql: &Client,
    holds: impl Future<Output = Result<(), SessionError>>,
) -> Result<(i64, LogWriter), SessionError> {
    let draw = "SELECT nextval('posduif_engine.fencing_token')";
    let token: i64 = sql.query_one(draw, &[]).await?.get(0);
    match session.writer(token).await {
        Err(SessionError::Log(LogError::Fenced)) => {}
        claimed => return Ok((token, claimed?)),
    }
    let mut redis = link::open(&session.redis).await?;
    let seen = LogWriter::highest_token(&mut redis, &session.tenant.id).await?;
    tracing::warn!(tenant = %session.tenant.id, token, seen, "the fencing sequence lies behind Redis; moving it on");
    // Not by somebody whose walsender has died meanwhile and whose successor issued that token.
    holds.await?;
    let advance = "SELECT setval('posduif_engine.fencing_token', greatest($1::bigint, $2::bigint))";
    sql.execute(advance, &[&seen, &token]).await?;
    let token: i64 = sql.query_one(draw, &[]).await?.get(0);
    Ok((token, session.writer(token).await?))
}

pub(super) struct Found<'a> {
    pub(super) system: &'a System,
    pub(super) new_slot: Option<String>,
    pub(super) confirmed: Lsn,
    pub(super) log: Option<&'a LogState>,
    pub(super) catalog: &'a Catalog,
}

/// Gathers the evidence and decides whether the log goes on.
pub(super) async fn judge(
    session: &Session,
    sql: &Client,
    writer: &mut LogWriter,
    found: &Found<'_>,
) -> Result<Option<Reason>, SessionError> {
    let kept = sql.query_one("SELECT epoch, relations FROM posduif_engine.sync_epoch", &[]).await?;
    let (registered, relations): (String, String) = (kept.get(0), kept.get(1));
    let follows = |earlier: Storage| found.catalog.storage().follows(&earlier).is_ok();
    // Asked now and not before the slot was held: a predecessor may have moved the log on until then.
    let flushed = flushed(sql).await?;
    let (mut newest_commit, mut heartbeat_found) = (None, true);
    if let Some(log) = found.log {
        newest_commit = writer.newest_commit(&log.epoch).await?.map(|record| record.commit);
        if let Some(beat) = log.heartbeat {
            heartbeat_found = heartbeat::exists(sql, beat).await?;
        }
    }
    Ok(verdict(&Evidence {
        system: &found.system.identifier,
        timeline: found.system.timeline,
        left_log_timeline: found.log.and_then(|log| found.system.left_timeline(log.timeline)),
        flushed,
        new_slot: found.new_slot.as_deref(),
        confirmed: found.confirmed,
        registered: registered.parse().ok(),
        log: found.log,
        newest_commit,
        heartbeat_found,
        rules: session.rules.hash(),
        tables: found.catalog.fingerprint(),
        storage_follows: relations.parse().is_ok_and(follows),
    }))
}

/// How far the server's WAL is on its disk.
async fn flushed(sql: &Client) -> Result<Lsn, SessionError> {
    let text: String = sql.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await?.get(0);
    text.parse().map_err(|_| SessionError::Closed)
}

/// What a new epoch is opened with.
pub(super) struct Opening<'a> {
    pub(super) token: i64,
    pub(super) system: &'a System,
    pub(super) catalog: &'a Catalog,
    pub(super) source: Source,
}

/// Opens an epoch, first in PostgreSQL and then in Redis: cut short between them, the next look opens another.
///
/// The epoch begins where the WAL ends now, not at the slot's position: what lies between was written under
/// tables that may no longer be the same, and snapshots cover it. That needs this order of reading the end of the
/// WAL, committing the UPDATE, taking the snapshot: every commit at or below the base then has a smaller id than
/// the UPDATE, so it has ended when nothing below the snapshot's `xmax` runs any more.
pub(super) async fn open_epoch(
    session: &Session,
    sql: &Client,
    writer: &mut LogWriter,
    opening: &Opening<'_>,
    reason: &Reason,
) -> Result<LogState, SessionError> {
    let (word, sentence) = reason.describe();
    let epoch = Epoch::from_random(rand::random());
    let base = flushed(sql).await?;
    // One statement, so that the history never lacks the epoch that is registered. What is older than a season is of no
    // use to anybody.
    let register = "WITH registered AS (
                        UPDATE posduif_engine.sync_epoch SET epoch = $1, token = $2, reason = $3, opened_at = now()
                         WHERE token < $2 RETURNING epoch),
                    outdated AS (
                        DELETE FROM posduif_engine.epoch_history WHERE opened_at < now() - interval '90 days')
                    INSERT INTO posduif_engine.epoch_history (epoch, token, reason, detail)
                    SELECT epoch, $2, $4, $3 FROM registered";
    let updated = sql.execute(register, &[&epoch.to_string(), &opening.token, &sentence, &word]).await?;
    if updated == 0 {
        return Err(LogError::Fenced.into());
    }
    let row = sql.query_one("SELECT pg_current_snapshot()::text", &[]).await?;
    let running: Snapshot = row.get::<_, String>(0).parse()?;
    // Of both sources: a restored dump has notes under another server's numbers, which a comparison would believe.
    capture::begin(sql, &running).await?;
    let (unready_below, seen) = match opening.source {
        Source::Wal => (Some(running.xmax), None),
        // What runs now is found by a poll once it has ended.
        Source::Polling => (None, Some(running.to_string())),
    };
    let state = LogState {
        epoch,
        base,
        watermark: Watermark { commit: base, end: base },
        floor: base,
        compacted: base,
        top: base,
        broken: None,
        rules: session.rules.hash().clone(),
        tables: opening.catalog.fingerprint().to_owned(),
        unready_below,
        heartbeat: None,
        system: opening.system.identifier.clone(),
        timeline: opening.system.timeline,
        supply: Supply { source: opening.source, seen, polled: None },
    };
    writer.open(&state).await?;
    session.metrics.epochs.with_label_values(&[session.tenant.id.as_str(), word]).inc();
    tracing::warn!(tenant = %session.tenant.id, %epoch, reason = word, "opened a new epoch: {sentence}; devices resync");
    Ok(state)
}
