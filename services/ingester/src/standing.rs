//! What an operator said of a tenant in, whether a session may begin and go on out.
//!
//! It is said in the tenant's own database, so whoever can follow the tenant can know it, and losing Redis resumes nothing.

use std::{future::poll_fn, sync::Arc, time::Duration};

use posduif_model::TenantId;
use posduif_runtime::postgres::{self, Driver};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_postgres::{AsyncMessage, Client, error::SqlState};

use crate::{
    health,
    session::{PATIENCE, Session, SessionError},
    wal::Slot,
};

/// Why a tenant is left alone. It is no failure: nobody is alarmed, nothing is tried again and again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Order {
    #[error("paused since {since} by {by}; posduif tenant resume {tenant} ends that")]
    Paused { tenant: TenantId, since: String, by: String },
    #[error(
        "dropped at {since} by {by}; take the tenant out of the configuration, or take it up again: posduif tenant add"
    )]
    Dropped { tenant: TenantId, since: String, by: String },
}

/// The channel on which `posduif tenant` says that it has said something.
const CHANNEL: &str = "posduif_tenancy";
/// How often a paused tenant is looked at, where no notification came.
const LOOK: Duration = Duration::from_secs(2);
/// How often a dropped one is; it takes no connection meanwhile, so that its database can be dropped as well.
const RARELY: Duration = Duration::from_secs(5);
const SHORTLY: Duration = Duration::from_secs(1);
/// Not that of sessions, for which the tool waits.
const APPLICATION: &str = "posduif-ingester-waits";

/// What an operator has said, if anything; a database from before that could be said has no orders.
pub async fn order(client: &Client, tenant: &TenantId) -> Result<Option<Order>, tokio_postgres::Error> {
    let when = r#"'YYYY-MM-DD"T"HH24:MI:SS"Z"'"#;
    let sql = format!(
        "SELECT to_char(paused_at AT TIME ZONE 'UTC', {when}), to_char(dropped_at AT TIME ZONE 'UTC', {when}),
                coalesce(nullif(changed_by, ''), 'somebody')
           FROM posduif_engine.tenancy"
    );
    let row = match client.query_opt(&sql, &[]).await {
        // That rights or migrations are missing, the session says better.
        Err(error)
            if error.code().is_some_and(|code| {
                [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME, SqlState::INSUFFICIENT_PRIVILEGE]
                    .contains(code)
            }) =>
        {
            return Ok(None);
        }
        row => row?,
    };
    let Some(row) = row else { return Ok(None) };
    let (paused, dropped): (Option<String>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    let (tenant, by) = (tenant.clone(), row.try_get(2)?);
    Ok(match (dropped, paused) {
        (Some(since), _) => Some(Order::Dropped { tenant, since, by }),
        (None, Some(since)) => Some(Order::Paused { tenant, since, by }),
        (None, None) => None,
    })
}

/// Ends whoever asks where the tenant is to be left alone.
pub async fn check(client: &Client, tenant: &TenantId) -> Result<(), SessionError> {
    match timeout(PATIENCE, order(client, tenant)).await.map_err(|_| SessionError::Silent)?? {
        Some(order) => Err(SessionError::Stopped(order)),
        None => Ok(()),
    }
}

/// Looks with every heartbeat, and at once when something is said; ends with an order.
pub async fn keep(
    client: Arc<Client>,
    tenant: TenantId,
    heard: Arc<Notify>,
    every: Duration,
) -> Result<(), SessionError> {
    listen(&client).await?;
    let mut timer = interval(every);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            () = heard.notified() => {}
        }
        check(&client, &tenant).await?;
    }
}

async fn listen(client: &Client) -> Result<(), SessionError> {
    let sql = format!("LISTEN {CHANNEL}");
    let listening = client.batch_execute(&sql);
    Ok(timeout(PATIENCE, listening).await.map_err(|_| SessionError::Silent)??)
}

/// Drives a connection, and says when a notification came on it.
pub async fn drive(mut driver: Driver, heard: &Notify) -> Result<(), tokio_postgres::Error> {
    while let Some(message) = poll_fn(|context| driver.poll_message(context)).await {
        if let AsyncMessage::Notification(_) = message? {
            heard.notify_one();
        }
    }
    Ok(())
}

/// Runs a session; where an order ends it, waits until there is no order any more, or another one.
///
/// # Errors
/// Those of the session; and a database that cannot be asked.
pub async fn obey(
    session: &Session,
    following: impl Future<Output = Result<(), SessionError>>,
) -> Result<(), SessionError> {
    let order = match following.await {
        Err(SessionError::Stopped(order)) => order,
        ended => return ended,
    };
    let tenant = &session.tenant.id;
    let vitals = session.metrics.vitals(tenant);
    vitals.follows(false);
    vitals.pauses(true);
    health::forget_parts(&session.readiness, tenant.as_str());
    session.readiness.degraded(tenant.to_string(), order.to_string());
    tracing::info!(%tenant, %order, "the tenant is not followed");
    let waited = match &order {
        Order::Paused { .. } => paused(session, &order).await,
        Order::Dropped { .. } => dropped(session, &order).await,
    };
    vitals.pauses(false);
    waited?;
    session.readiness.not_ready(tenant.to_string(), "starting");
    Ok(())
}

/// A connection of its own, and what drives it as long as the set lives.
async fn connect(session: &Session, heard: Arc<Notify>) -> Result<(Client, JoinSet<()>), SessionError> {
    let (client, driver) = postgres::connect(&session.tenant, APPLICATION).await?;
    let mut driving = JoinSet::new();
    driving.spawn(async move {
        // That it ended is told to whoever asks next.
        let _ended = drive(driver, &heard).await;
    });
    Ok((client, driving))
}

async fn paused(session: &Session, order: &Order) -> Result<(), SessionError> {
    let heard = Arc::new(Notify::new());
    let (client, _driving) = connect(session, Arc::clone(&heard)).await?;
    listen(&client).await?;
    while asked(&client, session).await?.as_ref() == Some(order) {
        // In vain is as good as a word: it looks.
        let _word = timeout(LOOK, heard.notified()).await;
    }
    Ok(())
}

/// What `posduif tenant drop` may not do: only a role with REPLICATION removes a slot.
async fn dropped(session: &Session, order: &Order) -> Result<(), SessionError> {
    let slot = session.wal.slot_name(session.tenant.url.database());
    let remove = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                   WHERE slot_name = $1 AND plugin = 'pgoutput' AND database = current_database() AND NOT active";
    loop {
        let (client, _driving) = connect(session, Arc::default()).await?;
        if asked(&client, session).await?.as_ref() != Some(order) {
            return Ok(());
        }
        let tenant = &session.tenant.id;
        let removed = timeout(PATIENCE, client.execute(remove, &[&slot])).await;
        match removed.map_err(|_| SessionError::Silent)? {
            Ok(0) => {}
            Ok(_) => tracing::info!(%tenant, slot, "removed the slot of a tenant that was dropped"),
            Err(error) => {
                tracing::warn!(%tenant, slot, %error, "the slot of a dropped tenant is still there")
            }
        }
        let rest = timeout(PATIENCE, Slot::find(&client, &slot)).await;
        let rest = rest.map_err(|_| SessionError::Silent)??;
        drop(client);
        // The walsender of the session that has just ended may hold it for a moment.
        sleep(if rest.is_some() { SHORTLY } else { RARELY }).await;
    }
}

async fn asked(client: &Client, session: &Session) -> Result<Option<Order>, SessionError> {
    let asked = timeout(PATIENCE, order(client, &session.tenant.id)).await;
    Ok(asked.map_err(|_| SessionError::Silent)??)
}
