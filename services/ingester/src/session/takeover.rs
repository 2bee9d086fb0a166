//! A tenant's slot, log and database in, the right to write its log out.

use posduif_changelog::{LogError, LogState, LogWriter, Watermark, connect as connect_redis};
use posduif_model::{Epoch, Lsn};
use tokio_postgres::Client;

use super::{Session, SessionError};
use crate::{
    epoch::{Evidence, Reason, verdict},
    heartbeat,
    wal::{Halves, ReplicationConnection, Slot, System},
};

/// A tenant that this process may write for.
pub struct Taken {
    pub state: LogState,
    /// The newest commit entry of the log.
    pub newest: Lsn,
    pub token: i64,
    /// Where the slot stands.
    pub confirmed: Lsn,
    pub writer: LogWriter,
    pub halves: Halves,
}

/// Holds the slot, then draws a fencing token, then looks at the log: in this order nobody else can be writing.
pub async fn take_over(session: &Session, sql: &Client) -> Result<Taken, SessionError> {
    let name = session.wal.slot_name(session.tenant.url.database());
    let mut replication = session.replication().await?;
    let system = replication.identify_system().await?;
    let new_slot = ensure_slot(session, sql, &mut replication, &name).await?;
    let halves = replication.start(&name, &session.wal.publication).await?;
    let (token, mut writer) = claim(session, sql).await?;
    let confirmed = match Slot::find(sql, &name).await? {
        Some(slot) => slot.confirmed,
        None => return Err(SessionError::Closed),
    };
    let log = match writer.state().await {
        Err(LogError::Corrupt(what)) => {
            tracing::error!(tenant = %session.tenant.id, what, "the log's state cannot be read");
            None
        }
        state => state?,
    };
    let found = Found { system: &system, new_slot, confirmed, log: log.as_ref() };
    let reason = judge(session, sql, &mut writer, &found).await?;
    let state = match (reason, log) {
        (None, Some(mut log)) => {
            if log.timeline != system.timeline {
                log.timeline = system.timeline;
                writer.open(&log).await?;
            }
            log
        }
        (reason, _) => {
            let reason = reason.unwrap_or(Reason::LogMissing);
            open_epoch(session, sql, &mut writer, token, confirmed, &system, &reason).await?
        }
    };
    let newest = writer.newest_commit(&state.epoch).await?.unwrap_or(state.base);
    tracing::info!(
        tenant = %session.tenant.id, slot = name, epoch = %state.epoch, token, %confirmed, %newest,
        watermark = %state.watermark.commit, "took the tenant over"
    );
    Ok(Taken { state, newest, token, confirmed, writer, halves })
}

/// Creates the slot where it is missing or lost; returns why it had to.
async fn ensure_slot(
    session: &Session,
    sql: &Client,
    replication: &mut ReplicationConnection,
    name: &str,
) -> Result<Option<String>, SessionError> {
    let tenant = &session.tenant.id;
    let why = match Slot::find(sql, name).await? {
        None => "there was none".to_owned(),
        Some(slot) if slot.plugin != "pgoutput" || slot.database != session.tenant.url.database() => {
            return Err(SessionError::ForeignSlot(name.to_owned()));
        }
        Some(Slot { fault: None, .. }) => return Ok(None),
        Some(Slot { fault: Some(fault), .. }) => {
            tracing::error!(%tenant, slot = name, reason = fault.0, "the slot is lost; replacing it");
            replication.drop_slot(name).await?;
            fault.0
        }
    };
    tracing::info!(%tenant, slot = name, why, "creating the slot; this waits for running transactions to end");
    replication.create_slot(name).await?;
    Ok(Some(why))
}

/// Draws tokens from the database until Redis takes one.
///
/// A restored or promoted database may hand out numbers that Redis has seen already. Whoever holds the slot is
/// the tenant's ingester, so it may move the sequence past them.
async fn claim(session: &Session, sql: &Client) -> Result<(i64, LogWriter), SessionError> {
    let draw = "SELECT nextval('posduif.fencing_token')";
    let token: i64 = sql.query_one(draw, &[]).await?.get(0);
    match session.writer(token).await {
        Err(SessionError::Log(LogError::Fenced)) => {}
        claimed => return Ok((token, claimed?)),
    }
    let mut redis =
        connect_redis::connect(session.redis.url.expose(), session.redis.response_timeout).await?;
    let seen = LogWriter::highest_token(&mut redis, &session.tenant.id).await?;
    tracing::warn!(tenant = %session.tenant.id, token, seen, "the fencing sequence lies behind Redis; moving it on");
    sql.execute("SELECT setval('posduif.fencing_token', greatest($1, $2))", &[&seen, &token]).await?;
    let token: i64 = sql.query_one(draw, &[]).await?.get(0);
    Ok((token, session.writer(token).await?))
}

struct Found<'a> {
    system: &'a System,
    new_slot: Option<String>,
    confirmed: Lsn,
    log: Option<&'a LogState>,
}

/// Gathers the evidence and decides whether the log goes on.
async fn judge(
    session: &Session,
    sql: &Client,
    writer: &mut LogWriter,
    found: &Found<'_>,
) -> Result<Option<Reason>, SessionError> {
    let registered: String = sql.query_one("SELECT epoch FROM posduif.sync_epoch", &[]).await?.get(0);
    let (mut newest_commit, mut heartbeat_found, mut left_log_timeline) = (None, true, None);
    if let Some(log) = found.log {
        newest_commit = writer.newest_commit(&log.epoch).await?;
        if let Some(beat) = log.heartbeat {
            heartbeat_found = heartbeat::exists(sql, beat).await?;
        }
        if log.timeline != found.system.timeline {
            let mut history = session.replication().await?;
            left_log_timeline = history.left_timeline(found.system.timeline, log.timeline).await?;
        }
    }
    Ok(verdict(&Evidence {
        system: &found.system.identifier,
        timeline: found.system.timeline,
        left_log_timeline,
        flushed: found.system.flushed,
        new_slot: found.new_slot.as_deref(),
        confirmed: found.confirmed,
        registered: registered.parse().ok(),
        log: found.log,
        newest_commit,
        heartbeat_found,
        rules: session.rules.hash(),
    }))
}

/// Opens an epoch, first in PostgreSQL and then in Redis: cut short between them, the next look opens another.
async fn open_epoch(
    session: &Session,
    sql: &Client,
    writer: &mut LogWriter,
    token: i64,
    confirmed: Lsn,
    system: &System,
    reason: &Reason,
) -> Result<LogState, SessionError> {
    let (word, sentence) = reason.describe();
    let epoch = Epoch::from_random(rand::random());
    // Local durability is enough and does not wait for a standby that may be missing.
    sql.batch_execute("SET synchronous_commit = local").await?;
    let updated = sql
        .execute(
            "UPDATE posduif.sync_epoch SET epoch = $1, token = $2, reason = $3, opened_at = now()
              WHERE token < $2",
            &[&epoch.to_string(), &token, &sentence],
        )
        .await?;
    if updated == 0 {
        return Err(LogError::Fenced.into());
    }
    // Commits just below the slot's position may still be invisible: no snapshot until whoever runs has ended.
    let running: String =
        sql.query_one("SELECT pg_snapshot_xmax(pg_current_snapshot())::text", &[]).await?.get(0);
    let state = LogState {
        epoch,
        base: confirmed,
        watermark: Watermark { commit: confirmed, end: confirmed },
        floor: confirmed,
        rules: session.rules.hash().clone(),
        unready_below: running.parse().ok(),
        heartbeat: None,
        system: system.identifier.clone(),
        timeline: system.timeline,
    };
    writer.open(&state).await?;
    session.metrics.epochs.with_label_values(&[session.tenant.id.as_str(), word]).inc();
    tracing::warn!(tenant = %session.tenant.id, %epoch, reason = word, "opened a new epoch: {sentence}; devices resync");
    Ok(state)
}
