//! A slot that a predecessor still holds in, a free one out, where this process has the lease.

use std::time::Duration;

use posduif_changelog::LogWriter;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use super::{Session, SessionError};
use crate::{link, wal::Slot};

/// A predecessor that has just given the tenant up is about to let go.
const COURTESY: Duration = Duration::from_millis(500);
/// A walsender that is told to end tells its client, and waits until that has room for it, which a frozen one never has. Told
/// once more it ends without a word.
const AGAIN: Duration = Duration::from_millis(500);
const TIMES: usize = 10;
const LOOK: Duration = Duration::from_millis(20);

/// Ends the walsender that holds the slot: its ingester is frozen or cut off, or has not heard yet that the tenant is ours.
/// PostgreSQL itself would notice a silent one after wal_sender_timeout only.
///
/// Where there is no lease nobody is ended, nor where the holder's token is unknown to our Redis: it writes to another one.
/// Two installations that share a tenant by mistake must not take it from each other again and again, each time with a
/// new epoch. What remains in the way, START_REPLICATION says.
pub async fn free(session: &Session, sql: &Client, slot: &str) -> Result<(), SessionError> {
    let lets_go = async || -> Result<(), tokio_postgres::Error> {
        while holder(sql, slot).await?.is_some() {
            sleep(LOOK).await;
        }
        Ok(())
    };
    if let Ok(free) = timeout(COURTESY, lets_go()).await {
        return Ok(free?);
    }
    let Some(pid) = holder(sql, slot).await? else { return Ok(()) };
    if !session.lease.holds() || !writes_here(session, sql).await? {
        return Ok(());
    }
    // By slot and process id: nobody else who came meanwhile, and no other process that got the number.
    let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                WHERE slot_name = $1 AND active_pid = $2";
    for time in 0..TIMES {
        if sql.execute(end, &[&slot, &pid]).await? > 0 && time == 0 {
            session.metrics.evictions.with_label_values(&[session.tenant.id.as_str()]).inc();
            tracing::warn!(
                tenant = %session.tenant.id, slot, pid, "ending the walsender of an ingester that has lost its lease"
            );
        }
        if let Ok(free) = timeout(AGAIN, lets_go()).await {
            return Ok(free?);
        }
    }
    Ok(())
}

/// Ends the connection that holds the lock of whoever polls, on the same conditions.
pub async fn end(session: &Session, sql: &Client, pid: i32) -> Result<(), SessionError> {
    sleep(COURTESY).await;
    if !session.lease.holds() || !writes_here(session, sql).await? {
        return Ok(());
    }
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks
                WHERE pid = $1 AND locktype = 'advisory' AND granted
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    if !sql.query(end, &[&pid]).await?.is_empty() {
        session.metrics.evictions.with_label_values(&[session.tenant.id.as_str()]).inc();
        tracing::warn!(tenant = %session.tenant.id, pid, "ended the connection of an ingester that has lost its lease");
    }
    Ok(())
}

async fn holder(sql: &Client, slot: &str) -> Result<Option<i32>, tokio_postgres::Error> {
    Ok(Slot::find(sql, slot).await?.and_then(|slot| slot.active_pid))
}

/// Whether our Redis has seen the newest fencing token. It has not for a moment while a session begins, nor after Redis
/// lost something: then the walsender ends by wal_sender_timeout.
async fn writes_here(session: &Session, sql: &Client) -> Result<bool, SessionError> {
    let drawn = "SELECT coalesce(pg_sequence_last_value('posduif_engine.fencing_token'), 0)";
    let drawn: i64 = sql.query_one(drawn, &[]).await?.get(0);
    let mut redis = link::open(&session.redis).await?;
    Ok(drawn <= LogWriter::highest_token(&mut redis, &session.tenant.id).await?)
}
