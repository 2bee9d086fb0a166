//! A tenant's tables in, its log kept up to date by looking at them again and again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use posduif_changelog::{Batch, LogError, LogState, durability};
use posduif_model::{Lsn, Source};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{
    PATIENCE, RETRY, SHORTLY, Session, SessionError, end,
    eviction::{self, Hold},
    follow::unpublished,
    promotion,
    takeover::{Found, Opening, check_recreations, claim, judge, open_epoch, readable, within},
};
use crate::{
    appender::Appender,
    capture::{self, Keeper},
    catalog::{Catalog, check_rights},
    epoch::Reason,
    gate::Stored,
    health::{self, Health},
    heartbeat,
    link::Link,
    lookout::Lookout,
    pipeline::Limits,
    polling::{PolledTable, Poller, Turn},
    progress::Progress,
    proof::Prover,
    standing,
    upkeep::Upkeep,
    visibility::Snapshot,
    wal::{Slot, System},
    watch::Watch,
    webhook::Owned,
};

/// Key of the advisory lock of whoever polls a tenant; the letters "posduifp" in ASCII.
const LOCK: i64 = 0x706f_7364_7569_6670;
/// How long polls may rest for a slot to take over, before there is another one and another attempt.
const TURN: Duration = Duration::from_secs(2);

/// Takes the tenant over and polls it; says that it is ready once it has.
///
/// # Errors
/// It ends without one only with `leave`, once a slot goes on where the last poll has ended.
pub async fn run(
    session: &Session,
    sql: Client,
    mut parts: JoinSet<Result<(), SessionError>>,
    leave: bool,
) -> Result<(), SessionError> {
    Catalog::load(&sql, &session.rules, &session.wal.publication, Source::Polling).await?;
    check_rights(&sql).await?;
    let heard = Arc::new(Notify::new());
    let watching = Arc::new(session.listening(&mut parts, Arc::clone(&heard)).await?);
    let begun = begin(session, sql, Arc::clone(&watching));
    let (mut poller, keeper, ends) = tokio::select! {
        begun = begun => begun?,
        ended = parts.join_next() => return Err(end::reason(ended, &mut parts).await),
    };
    let tenant = session.tenant.id.to_string();
    let look = Watch {
        slot: String::new(),
        vitals: Arc::clone(&poller.vitals),
        readiness: session.readiness.clone(),
        component: health::slot_component(&tenant),
    };
    let (every, beats) = (session.wal.heartbeat_interval, poller.confirmed_heartbeat.subscribe());
    let wish = CancellationToken::new();
    let warmth = session.warmth(&poller.vitals);
    let is_cold = warmth.is_some() && !leave;
    match warmth {
        _ if leave => wish.cancel(),
        None => {}
        Some(warmth) => {
            let wish = wish.clone();
            parts.spawn(async move {
                warmth.warms().await;
                tracing::info!(tenant = %warmth.tenant, "the tenant is needed again; following its WAL from now on");
                wish.cancel();
                std::future::pending().await
            });
        }
    }
    let outdated = Outdated {
        slot: (!leave).then(|| session.wal.slot_name(session.tenant.url.database())),
        wish: wish.clone(),
    };
    // Only now: before, it may have waited for a lock.
    parts.spawn(standing::keep(Arc::clone(&watching), session.tenant.id.clone(), heard, every));
    parts.spawn(keep_watch(watching, poller.lookout.clone(), look, every, beats, keeper, outdated));
    let surroundings = session.surroundings();
    let token = ends.token;
    let prover = Prover {
        link: Link::new(session.writer(token).await?, surroundings.clone()),
        epoch: poller.epoch,
        replicas: session.redis.durable_replicas,
        published: poller.published.subscribe(),
        proven: ends.proven,
        tenant: tenant.clone(),
        response_timeout: session.redis.response_timeout,
    };
    parts.spawn(async move { Ok(prover.run().await?) });
    let upkeep = Upkeep {
        link: Link::new(session.writer(token).await?, surroundings.clone()),
        epoch: poller.epoch,
        retention: session.retention.clone(),
        pressure: Arc::clone(&surroundings.pressure),
        readiness: session.readiness.clone(),
        metrics: session.metrics.clone(),
        tenant: tenant.clone(),
        shared_kept: 0,
    };
    parts.spawn(async move { Ok(upkeep.run().await?) });
    let owned = Owned {
        tenant: session.tenant.id.clone(),
        token,
        published: poller.published.subscribe(),
        metrics: session.metrics.clone(),
        vitals: Arc::clone(&poller.vitals),
    };
    let _webhook =
        session.webhook.as_ref().map(|webhook| webhook.follow(owned, &session.redis)).transpose()?;
    poller.poll().await?;
    poller.vitals.follows(true);
    session.readiness.ready(tenant);
    tokio::select! {
        polled = poll(session, &mut poller, wish, is_cold) => polled,
        ended = parts.join_next() => Err(end::reason(ended, &mut parts).await),
    }
}

/// The other ends of a poller's channels.
struct Ends {
    token: i64,
    proven: watch::Sender<Option<Lsn>>,
}

/// Takes the lock, then draws a fencing token, then looks at the log: in this order nobody else can be writing.
async fn begin(
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

/// A slot that nobody follows any more, until a new one is wished for.
struct Outdated {
    slot: Option<String>,
    wish: CancellationToken,
}

/// Beats, and throws away what is no longer needed.
async fn keep_watch(
    client: Arc<Client>,
    lookout: Lookout,
    look: Watch,
    every: Duration,
    confirmed: watch::Receiver<i64>,
    mut keeper: Keeper,
    mut outdated: Outdated,
) -> Result<(), SessionError> {
    let mut timer = interval(every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let oldest = *confirmed.borrow();
        timeout(PATIENCE, heartbeat::beat(&client, oldest)).await.map_err(|_| SessionError::Silent)??;
        lookout.check(&client).await?;
        timeout(PATIENCE, look.look(&client)).await.map_err(|_| SessionError::Silent)??;
        keeper.look(&client).await?;
        if let Some(slot) = outdated.slot.as_ref().filter(|_| !outdated.wish.is_cancelled())
            && drop_slot(&client, slot).await?
        {
            outdated.slot = None;
        }
    }
}

/// Drops the slot that nobody follows any more, so that it keeps no WAL; `false`: not yet.
async fn drop_slot(client: &Client, name: &str) -> Result<bool, SessionError> {
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                 WHERE slot_name = $1 AND plugin = 'pgoutput' AND database = current_database() AND NOT active";
    if let Err(error) = client.query(drop, &[&name]).await {
        tracing::warn!(slot = name, %error, "the slot of a tenant that is polled cannot be dropped; trying again");
        return Ok(false);
    }
    Ok(Slot::find(client, name).await?.is_none())
}

/// Creates the slot that shall take over, however long that takes; polls go on meanwhile.
async fn create_slot(session: &Session, client: &Client) -> Result<(), SessionError> {
    let name = session.wal.slot_name(session.tenant.url.database());
    let component = health::source_component(session.tenant.id.as_str());
    loop {
        let made = async {
            Catalog::load(client, &session.rules, &session.wal.publication, Source::Wal).await?;
            check_recreations(client, &name, "it was lost").await?;
            // One that is left over knows too much: the new one begins now.
            drop_slot(client, &name).await?;
            let mut replication = session.replication().await?;
            Ok::<_, SessionError>(replication.create_slot(&name).await?)
        };
        match made.await {
            Ok(()) => {
                session.readiness.forget(&component);
                session.metrics.slots_created.with_label_values(&[session.tenant.id.as_str()]).inc();
                return Ok(());
            }
            Err(error) => {
                let reason = format!("polling, because the WAL cannot be followed: {error}");
                tracing::warn!(tenant = %session.tenant.id, slot = name, reason, "trying again");
                session.readiness.degraded(&component, reason);
            }
        }
        sleep(RETRY).await;
    }
}

/// Polls until an error, or until a slot has taken over.
async fn poll(
    session: &Session,
    poller: &mut Poller,
    wish: CancellationToken,
    is_cold: bool,
) -> Result<(), SessionError> {
    let mut timer = interval(if is_cold { session.wal.cold_interval } else { session.wal.read_interval });
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watching = Arc::clone(&poller.watching);
    let slot = create_slot(session, &watching);
    tokio::pin!(slot);
    let (mut is_wanted, mut is_made) = (false, false);
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            () = wish.cancelled(), if !is_wanted && !is_made => {
                is_wanted = true;
                timer = interval(session.wal.read_interval);
                timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            }
            made = &mut slot, if is_wanted => {
                made?;
                (is_wanted, is_made) = (false, true);
            }
        }
        poller.tick().await?;
        if is_made && try_turn(poller).await? {
            tracing::info!(tenant = %session.tenant.id, "the log is handed over to the slot");
            return Ok(());
        }
        poller.poll().await?;
    }
}

/// Lets everything end that runs, for a moment, and polls the last time if it has.
async fn try_turn(poller: &mut Poller) -> Result<bool, SessionError> {
    let turn: Turn = poller.note().await?;
    let begun = Instant::now();
    while poller.snapshot().await?.xmin < turn.xmax {
        if begun.elapsed() > TURN {
            return Ok(false);
        }
        sleep(SHORTLY).await;
    }
    Ok(poller.turn(turn).await?)
}
