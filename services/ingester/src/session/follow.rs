//! A tenant's WAL in, its log kept up to date for as long as every connection holds.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use posduif_changelog::{Batch, LogError, LogWriter};
use posduif_model::{Epoch, Lsn, Source};
use posduif_runtime::postgres;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_postgres::Client;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{PATIENCE, Session, SessionError, end, takeover};
use crate::{
    appender::Appender,
    capture::{self, Keeper},
    catalog::{Catalog, check_rights},
    gate::{Gate, Stored},
    guard::{APPLICATION, Guard},
    health::{self, Health},
    heartbeat,
    link::Link,
    lookout::Lookout,
    pipeline::{Limits, Pipeline},
    progress::Progress,
    proof::Prover,
    standing,
    transaction::Assembler,
    upkeep::Upkeep,
    visibility::Snapshot,
    wal::{self, Feedback},
    watch::Watch,
    webhook::Owned,
};

/// Messages that may wait between the parts; payload bytes have a budget of their own.
const QUEUE: usize = 4_096;
/// Commits read at once when a predecessor left some unpublished.
const COMMITS_AT_ONCE: usize = 1_000;

/// Takes the tenant over and follows its WAL; says that it is ready once changes flow.
///
/// # Errors
/// It ends without one only with `leave`, once everything up to the end of the log is published and polling can go on.
pub async fn run(
    session: &Session,
    sql: Client,
    mut parts: JoinSet<Result<(), SessionError>>,
    leave: bool,
) -> Result<(), SessionError> {
    // Before anything is made for it on the server.
    Catalog::load(&sql, &session.rules, &session.wal.publication, Source::Wal).await?;
    check_rights(&sql).await?;
    // Should the ordinary connection end meanwhile, so does the attempt.
    let taken = tokio::select! {
        taken = takeover::take_over(session, &sql) => taken?,
        ended = parts.join_next() => return Err(end::reason(ended, &mut parts).await),
    };

    let epoch = taken.state.epoch;
    let vitals = session.metrics.vitals(&session.tenant.id);
    let (clock, beat) = heartbeat::age(&sql, taken.state.heartbeat).await?;
    vitals.clock(clock, Instant::now());
    vitals.took_over(taken.state.watermark.end, beat, taken.state.unready_below.is_some());
    let (events, events_in) = mpsc::channel(QUEUE);
    let (stored, stored_in) = mpsc::channel(QUEUE);
    let (confirmed, confirmed_in) = watch::channel(taken.confirmed);
    let (beats, beats_in) = watch::channel(0);
    let (seen, seen_in) = watch::channel(None);
    let keeper = Keeper::new(seen_in.clone(), confirmed_in.clone());
    let leaves = CancellationToken::new();
    let handed = CancellationToken::new();
    let hands = handed.clone();
    let answer_now = Arc::new(Notify::new());

    let (reader, writer) = taken.halves;
    let feedback = Feedback {
        confirmed: confirmed_in,
        answer_now: Arc::clone(&answer_now),
        every: session.wal.status_interval.min(session.wal.read_interval),
    };
    parts.spawn(async move { Ok(wal::receive(reader, events, answer_now).await?) });
    parts.spawn(async move { Ok(wal::report(writer, feedback).await?) });
    let heard = Arc::new(Notify::new());
    let watching = Arc::new(session.listening(&mut parts, Arc::clone(&heard)).await?);
    let every = session.wal.heartbeat_interval;
    parts.spawn(standing::keep(Arc::clone(&watching), session.tenant.id.clone(), heard, every));
    let tenant = session.tenant.id.to_string();
    let watch = Watch {
        slot: taken.guard.slot.clone(),
        vitals: Arc::clone(&vitals),
        readiness: session.readiness.clone(),
        component: health::slot_component(&tenant),
    };
    parts.spawn(keep_watch(
        Arc::clone(&watching),
        taken.guard,
        taken.lookout.clone(),
        watch,
        session.wal.heartbeat_interval,
        beats_in,
        keeper,
    ));
    let wish = CancellationToken::new();
    match session.warmth(&vitals) {
        _ if leave => wish.cancel(),
        None => {}
        Some(warmth) => {
            let wish = wish.clone();
            parts.spawn(async move {
                warmth.cools().await;
                tracing::info!(tenant = %warmth.tenant, "nobody needs the tenant's slot; polling it from now on");
                wish.cancel();
                std::future::pending().await
            });
        }
    }
    let (leaving, token) = (session.clone(), leaves.clone());
    parts.spawn(async move {
        prepare(&leaving, wish, seen_in).await?;
        token.cancel();
        std::future::pending().await
    });

    let surroundings = session.surroundings();
    let mut gate_writer = session.writer(taken.token).await?;
    let waiting = unpublished(&mut gate_writer, &epoch, taken.state.watermark.commit).await?;
    let (published, published_in) = watch::channel(taken.state.watermark.end);
    let (proven, proven_in) = watch::channel(None);
    let owned = Owned {
        tenant: session.tenant.id.clone(),
        token: taken.token,
        published: published.subscribe(),
        metrics: session.metrics.clone(),
        vitals: Arc::clone(&vitals),
    };
    let gate = Gate {
        client: sql,
        link: Link::new(gate_writer, surroundings.clone()),
        epoch,
        watermark: taken.state.watermark,
        waiting,
        unready_below: taken.state.unready_below,
        supply: taken.state.supply,
        looked: None,
        seen,
        leave: leaves.clone(),
        progress: Progress::new(taken.confirmed, session.wal.confirm_delay, Instant::now()),
        published,
        proven: proven_in,
        confirmed,
        confirmed_heartbeat: beats,
        metrics: session.metrics.clone(),
        vitals: Arc::clone(&vitals),
        tenant: tenant.clone(),
        health: Health::new(session.readiness.clone(), tenant.clone(), 3 * session.wal.heartbeat_interval),
    };
    parts.spawn(async move {
        // Its connection outlives it: the end of one ends the session.
        let mut gate = gate;
        gate.run(stored_in).await?;
        hands.cancel();
        std::future::pending().await
    });
    let prover = Prover {
        link: Link::new(session.writer(taken.token).await?, surroundings.clone()),
        epoch,
        replicas: session.redis.durable_replicas,
        published: published_in,
        proven,
        tenant: tenant.clone(),
        response_timeout: session.redis.response_timeout,
    };
    parts.spawn(async move { Ok(prover.run().await?) });
    let upkeep = Upkeep {
        link: Link::new(session.writer(taken.token).await?, surroundings.clone()),
        epoch,
        retention: session.retention.clone(),
        pressure: Arc::clone(&surroundings.pressure),
        readiness: session.readiness.clone(),
        metrics: session.metrics.clone(),
        tenant: tenant.clone(),
        shared_kept: 0,
    };
    parts.spawn(async move { Ok(upkeep.run().await?) });
    let newest = taken.end.newest;
    let pipeline = Pipeline {
        assembler: Assembler::new(
            session.rules.clone(),
            taken.catalog,
            taken.end,
            session.wal.transaction_cap_bytes,
        ),
        lookout: taken.lookout,
        client: watching,
        appender: Appender {
            batch: Batch::new(taken.writer.keys().clone(), epoch),
            link: Link::new(taken.writer, surroundings),
            stored: newest,
        },
        leave: leaves,
        limits: Limits { bytes: session.wal.chunk_bytes, transactions: session.wal.batch_size },
        gate: stored,
        metrics: session.metrics.clone(),
        vitals: Arc::clone(&vitals),
        tenant,
    };
    parts.spawn(async move {
        let mut events_in = events_in;
        pipeline.run(&mut events_in).await?;
        // The gate says when what it was given last is published.
        std::future::pending().await
    });
    // No part of the session: it ends with it, and ends none.
    let _webhook =
        session.webhook.as_ref().map(|webhook| webhook.follow(owned, &session.redis)).transpose()?;
    vitals.follows(true);
    session.readiness.ready(session.tenant.id.to_string());
    tokio::select! {
        ended = parts.join_next() => Err(end::reason(ended, &mut parts).await),
        () = handed.cancelled() => {
            tracing::info!(tenant = %session.tenant.id, "the log is handed over to polling");
            Ok(())
        }
    }
}

/// Switches the triggers off, and on when it is wished that polls go on from here: then the log must have everything that a
/// snapshot shows in which they all were there already.
async fn prepare(
    session: &Session,
    wish: CancellationToken,
    mut seen: watch::Receiver<Option<(Snapshot, Lsn)>>,
) -> Result<(), SessionError> {
    if !wish.is_cancelled() {
        let (client, _driver) = passing(session).await?;
        capture::switch(&client, &session.rules, false).await?;
    }
    wish.cancelled().await;
    let (client, _driver) = passing(session).await?;
    let component = health::source_component(session.tenant.id.as_str());
    loop {
        match Catalog::load(&client, &session.rules, &session.wal.publication, Source::Polling).await {
            Ok(_) => break,
            Err(error) => {
                let reason = format!("following the WAL, because the tables cannot be polled: {error}");
                tracing::warn!(tenant = %session.tenant.id, reason, "trying again");
                session.readiness.degraded(&component, reason);
            }
        }
        tokio::time::sleep(super::RETRY).await;
    }
    capture::switch(&client, &session.rules, true).await?;
    loop {
        // Moves the watermark of an idle tenant.
        heartbeat::beat(&client, 0).await?;
        let standing = capture::standing(&client, &session.rules).await?;
        let snapshot = seen.borrow_and_update().as_ref().map(|(snapshot, _)| snapshot.clone());
        if let (Some(standing), Some(snapshot)) = (standing, snapshot)
            && standing.notes_all_since(&snapshot)
        {
            return Ok(());
        }
        tokio::time::sleep(super::SHORTLY).await;
    }
}

/// A connection that is needed for a moment only: its end does not end the session.
async fn passing(session: &Session) -> Result<(Client, AbortOnDropHandle<()>), SessionError> {
    let (client, driver) = postgres::connect(&session.tenant, APPLICATION).await?;
    // Whoever uses the connection sees how it ends.
    let driver = AbortOnDropHandle::new(tokio::spawn(async move { drop(driver.await) }));
    client.batch_execute("SET synchronous_commit = local").await?;
    Ok((client, driver))
}

/// Beats and checks until something no longer holds.
async fn keep_watch(
    client: Arc<Client>,
    guard: Guard,
    lookout: Lookout,
    look: Watch,
    every: Duration,
    confirmed: watch::Receiver<i64>,
    mut keeper: Keeper,
) -> Result<(), SessionError> {
    let mut timer = interval(every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let oldest = *confirmed.borrow();
        timeout(PATIENCE, heartbeat::beat(&client, oldest)).await.map_err(|_| SessionError::Silent)??;
        timeout(PATIENCE, guard.check(&client)).await.map_err(|_| SessionError::Silent)??;
        lookout.check(&client).await?;
        timeout(PATIENCE, look.look(&client)).await.map_err(|_| SessionError::Silent)??;
        keeper.look(&client).await?;
    }
}

/// The commits that an earlier session stored and did not publish, oldest first.
pub async fn unpublished(
    writer: &mut LogWriter,
    epoch: &Epoch,
    mut after: Lsn,
) -> Result<VecDeque<Stored>, SessionError> {
    let mut waiting = VecDeque::new();
    loop {
        let records = match writer.commits(epoch, after, Lsn::new(u64::MAX), COMMITS_AT_ONCE).await {
            Err(error @ LogError::Corrupt(_)) => {
                // Every session would find it; the next one opens an epoch.
                writer.give_up(epoch, &error.to_string()).await?;
                return Err(error.into());
            }
            records => records?,
        };
        let Some(last) = records.last() else {
            return Ok(waiting);
        };
        after = last.commit;
        waiting.extend(records.iter().map(|record| Stored::Commit {
            commit: record.commit,
            end: record.end,
            xid: record.xid,
            committed_at: record.committed_at,
            heartbeat: None,
            left_out: record.left_out,
        }));
    }
}
