//! A tenant's tables in, its log kept up to date by looking at them again and again.

mod begin;
mod turn;

use std::{sync::Arc, time::Duration};

use posduif_model::Source;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{PATIENCE, Session, SessionError, end};
use crate::{
    capture::Keeper,
    catalog::{Catalog, check_rights},
    health, heartbeat,
    link::Link,
    lookout::Lookout,
    proof::Prover,
    standing,
    upkeep::Upkeep,
    watch::Watch,
    webhook::Owned,
};

use begin::begin;
use turn::{drop_slot, poll};

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
