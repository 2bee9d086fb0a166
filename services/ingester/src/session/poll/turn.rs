//! A poller in, polls until a slot has taken over out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use posduif_model::Source;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::Catalog,
    health,
    polling::{Poller, Turn},
    session::{RETRY, SHORTLY, Session, SessionError, takeover::check_recreations},
    wal::Slot,
};

/// How long polls may rest for a slot to take over, before there is another one and another attempt.
const TURN: Duration = Duration::from_secs(2);

/// Drops the slot that nobody follows any more, so that it keeps no WAL; `false`: not yet.
pub(super) async fn drop_slot(client: &Client, name: &str) -> Result<bool, SessionError> {
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
pub(super) async fn poll(
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
