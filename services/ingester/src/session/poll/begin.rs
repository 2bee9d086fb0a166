//! A tenant's lock, log and database in, the right to poll it out.

use std::{sync::Arc, time::Instant};

use posduif_changelog::{Batch, LogError, LogState, durability};
use posduif_model::{Lsn, Source};
use tokio::{sync::watch, time::sleep};
use tokio_postgres::Client;

use crate::{
    appender::Appender,
    capture::{self, Keeper},
    catalog::Catalog,
    epoch::Reason,
    gate::Stored,
    health::Health,
    heartbeat,
    link::Link,
    lookout::Lookout,
    pipeline::Limits,
    polling::{PolledTable, Poller},
    progress::Progress,
    session::{
        SHORTLY, Session, SessionError,
        eviction::{self, Hold},
        follow::unpublished,
        promotion,
        takeover::{Found, Opening, claim, judge, open_epoch, readable, within},
    },
    visibility::Snapshot,
    wal::System,
};

/// Key of the advisory lock of whoever polls a tenant; the letters "posduifp" in ASCII.
const LOCK: i64 = 0x706f_7364_7569_6670;

/// The other ends of a poller's channels.
pub(super) struct Ends {
    pub(super) token: i64,
    pub(super) proven: watch::Sender<Option<Lsn>>,
}

/// Takes the lock, then draws a fencing token, then looks at the log: in this order nobody else can be writing.
pub(super) async fn begin(
    session: &Session,
    sql: Client,
    watching: Arc<Client>,
) -> Result<(Poller, Keeper, Ends), SessionError> {
    let tenant = session.tenant.id.to_string();
    eviction::free(session, &sql, Hold::Lock(LOCK)).await?;
    if let Some(holder) = lock(&sql).await? {
        return Err(SessionError::LockTaken(holder));
    }
    let mut system = system(&sql).await?;
    let holds = async { Ok(()) };
    let (token, mut writer) = claim(session, &sql, holds).await?;
    durability::concerns(writer.connection()).await?;
    session.readiness.not_ready(
        &tenant,
        "switching the triggers of the tables on, which waits for whoever writes to them; if it takes long, look for the \
         oldest xact_start in pg_stat_activity",
    );
    capture::switch(&watching, &session.rules, true).await?;
    watching.batch_execute("SET lock_timeout = 0").await?;
    let log = match readable(&mut writer).await {
        Err(LogError::Corrupt(what)) => {
            tracing::error!(tenant, what, "the log's state cannot be read");
            None
        }
        log => log?,
    };
    let catalog = Catalog::load(&sql, &session.rules, &session.wal.publication, Source::Polling).await?;
    if log.as_ref().is_some_and(|log| log.timeline != system.timeline) {
        system.left = history(session, &sql, &system).await?;
    }
    let found =
        Found { system: &system, new_slot: None, confirmed: Lsn::ZERO, log: log.as_ref(), catalog: &catalog };
    let mut reason = judge(session, &sql, &mut writer, &found).await?;
    let mut state = log;
    if let (None, Some(log)) = (&reason, &state) {
        reason = gap(session, &sql, &mut writer, log).await?;
    }
    let state = match (reason, state.take()) {
        (None, Some(log)) if log.timeline != system.timeline => {
            promotion::follow(&sql, &mut writer, log, system.timeline).await?
        }
        (None, Some(log)) => log,
        (reason, _) => {
            let opening = Opening { token, system: &system, catalog: &catalog, source: Source::Polling };
            let reason = reason.unwrap_or(Reason::LogMissing);
            open_epoch(session, &sql, &mut writer, &opening, &reason).await?
        }
    };
    if state.supply.source == Source::Wal {
        let note = "INSERT INTO posduif_engine.epoch_history (epoch, token, reason, detail)
                    VALUES ($1, $2, 'slot_compared', $3)";
        let detail =
            "the replication slot was lost; what changed meanwhile is compared, and no device resyncs";
        sql.execute(note, &[&state.epoch.to_string(), &token, &detail]).await?;
        tracing::warn!(tenant, epoch = %state.epoch, "{detail}");
    }
    let lookout = Lookout {
        rules: session.rules.clone(),
        publication: session.wal.publication.clone(),
        source: Source::Polling,
        epoch: state.epoch,
        token,
        fingerprint: catalog.fingerprint().to_owned(),
        storage: Arc::default(),
    };
    lookout.keep(&sql, catalog.storage()).await?;
    let (stored, written, noted) = match writer.newest_commit(&state.epoch).await? {
        Some(record) => (record.commit, record.written, record.seen),
        None => (state.base, 0, None),
    };
    let waiting = unpublished(&mut writer, &state.epoch, state.watermark.commit).await?;
    let seen = match noted.filter(|_| !waiting.is_empty()) {
        // A poll that is stored whole.
        Some(noted) => noted,
        None => state.supply.seen.clone().unwrap_or_default(),
    };
    let seen: Snapshot = seen.parse()?;
    if state.unready_below.is_some() {
        // What ran when the epoch was opened is in no slot, but polls find it when it ends.
        writer.ready(&state.epoch).await?;
    }
    visible(&sql, waiting.iter()).await?;
    let standing = capture::standing(&sql, &session.rules).await?;
    let unsure = !standing.is_some_and(|standing| standing.notes_all_since(&seen));
    let vitals = session.metrics.vitals(&session.tenant.id);
    let (clock, beat) = heartbeat::age(&sql, state.heartbeat).await?;
    vitals.clock(clock, Instant::now());
    vitals.took_over(state.watermark.end, beat, false);
    session.metrics.take_overs.with_label_values(&[tenant.as_str()]).inc();
    tracing::info!(
        tenant, epoch = %state.epoch, token, newest = %stored, watermark = %state.watermark.commit, unsure,
        "took the tenant over; polling it"
    );
    let tables = PolledTable::all(&session.rules, &catalog)
        .map_err(|problem| SessionError::Table { table: "a declared table", problem })?;
    let (published, _) = watch::channel(state.watermark.end);
    let (proven, proven_in) = watch::channel(None);
    let (confirmed, confirmed_in) = watch::channel(Lsn::ZERO);
    let (confirmed_heartbeat, _) = watch::channel(0);
    let (told, told_in) = watch::channel(None);
    let limits = Limits { bytes: session.wal.chunk_bytes, transactions: 1 };
    let poller = Poller {
        client: sql,
        watching,
        tables,
        lookout,
        appender: Appender {
            batch: Batch::new(writer.keys().clone(), state.epoch),
            link: Link::new(writer, session.surroundings()),
            stored,
        },
        epoch: state.epoch,
        top: state.top,
        watermark: state.watermark,
        written,
        seen,
        unsure,
        limits,
        cap: session.wal.transaction_cap_bytes,
        progress: Progress::new(Lsn::ZERO, session.wal.confirm_delay, Instant::now()),
        published,
        proven: proven_in,
        confirmed,
        confirmed_heartbeat,
        told,
        metrics: session.metrics.clone(),
        vitals,
        health: Health::new(session.readiness.clone(), tenant.clone(), 3 * session.wal.heartbeat_interval),
        tenant,
    };
    Ok((poller, Keeper::new(told_in, confirmed_in), Ends { token, proven }))
}

/// The server, without a replication connection: one that is only polled may allow none.
async fn system(sql: &Client) -> Result<System, SessionError> {
    let ask = "SELECT system_identifier::text, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)
                 FROM pg_control_system()";
    let row = sql.query_one(ask, &[]).await?;
    let timeline = u32::from_str_radix(row.get(1), 16).map_err(|_| SessionError::Closed)?;
    Ok(System { identifier: row.get(0), timeline, left: Vec::new() })
}

/// Where the server left earlier timelines, which only a replication connection can ask; where none is allowed, nobody knows.
async fn history(session: &Session, sql: &Client, system: &System) -> Result<Vec<(u32, Lsn)>, SessionError> {
    let senders: String = sql.query_one("SHOW max_wal_senders", &[]).await?.get(0);
    if senders == "0" {
        return Ok(Vec::new());
    }
    let mut replication = match session.replication().await {
        Err(SessionError::Wal(error)) if matches!(error.code(), Some("28000" | "42501")) => {
            return Ok(Vec::new());
        }
        replication => replication?,
    };
    let asked = within(replication.identify_system()).await?;
    // The address may have led to another server.
    match (&asked.identifier, asked.timeline) == (&system.identifier, system.timeline) {
        true => Ok(asked.left),
        false => Err(SessionError::Closed),
    }
}

/// Takes the lock of whoever polls; else gives who has it.
async fn lock(sql: &Client) -> Result<Option<i32>, SessionError> {
    if sql.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK]).await?.get(0) {
        return Ok(None);
    }
    let holder = "SELECT pid FROM pg_locks
                   WHERE locktype = 'advisory' AND granted AND objsubid = 1
                     AND (classid::int8 << 32 | objid::int8) = $1
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    Ok(Some(sql.query_opt(holder, &[&LOCK]).await?.map_or(0, |row| row.get(0))))
}

/// Why it cannot be found out what changed since the log's newest change, if so.
async fn gap(
    session: &Session,
    sql: &Client,
    writer: &mut posduif_changelog::LogWriter,
    log: &LogState,
) -> Result<Option<Reason>, SessionError> {
    let Some(seen) = log.supply.seen.as_ref().and_then(|seen| seen.parse::<Snapshot>().ok()) else {
        return Ok(Some(Reason::GapUnknown("the log does not say which snapshot it has")));
    };
    let newest = writer.newest_commit(&log.epoch).await?.map_or(log.base, |record| record.commit);
    if log.supply.source == Source::Wal && log.top > newest {
        return Ok(Some(Reason::GapUnknown("a part of a transaction was stored")));
    }
    let Some(standing) = capture::standing(sql, &session.rules).await? else {
        return Ok(Some(Reason::GapUnknown("no triggers noted it; run posduif migrate")));
    };
    Ok((!standing.tells_since(&seen))
        .then_some(Reason::GapUnknown("the triggers are younger, or it was thrown away")))
}

/// Waits until new snapshots show everything that is stored.
async fn visible(sql: &Client, stored: impl Iterator<Item = &Stored>) -> Result<(), SessionError> {
    let xids: Vec<u32> = stored
        .filter_map(|stored| match stored {
            Stored::Commit { xid, .. } => Some(*xid),
            Stored::Drained(_) => None,
        })
        .collect();
    loop {
        let row = sql.query_one("SELECT pg_current_snapshot()::text", &[]).await?;
        let snapshot: Snapshot = row.get::<_, String>(0).parse()?;
        if xids.iter().all(|xid| snapshot.sees(*xid)) {
            return Ok(());
        }
        sleep(SHORTLY).await;
    }
}
