//! What a predecessor still holds of a tenant in, nobody who holds it out, where this process has the lease.

use std::time::Duration;

use posduif_changelog::LogWriter;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

use super::{Session, SessionError};
use crate::link;

/// What only one can hold.
#[derive(Clone, Copy, Debug)]
pub enum Hold<'a> {
    /// The replication slot of this name.
    Slot(&'a str),
    /// The advisory lock with this key, of the tenant's database.
    Lock(i64),
}

/// A predecessor that has just given the tenant up is about to let go.
const COURTESY: Duration = Duration::from_millis(500);
/// A walsender that is told to end tells its client, and waits until that has room for it, which a frozen one never has. Told
/// once more it ends without a word.
const AGAIN: Duration = Duration::from_millis(500);
const TIMES: usize = 10;
const LOOK: Duration = Duration::from_millis(20);

impl Hold<'_> {
    /// The process of PostgreSQL that has it.
    async fn holder(self, sql: &Client) -> Result<Option<i32>, tokio_postgres::Error> {
        let slot =
            "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL";
        // A key of 64 bits stands in two halves (manual 53.13, "pg_locks").
        let lock = "SELECT pid FROM pg_locks
                     WHERE locktype = 'advisory' AND granted AND objsubid = 1
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                       AND (classid::int8 << 32 | objid::int8) = $1";
        let row = match self {
            Hold::Slot(name) => sql.query_opt(slot, &[&name]).await?,
            Hold::Lock(key) => sql.query_opt(lock, &[&key]).await?,
        };
        row.map(|row| row.try_get(0)).transpose()
    }
}

/// Ends the connection of a predecessor that is frozen or cut off, or has not heard yet that the tenant is ours. PostgreSQL
/// itself notices a silent walsender after wal_sender_timeout, and others later.
///
/// Where there is no lease nobody is ended, nor where the holder's token is unknown to our Redis: it writes to another one.
/// Two installations that share a tenant by mistake must not take it from each other again and again, each time with a
/// new epoch. What remains in the way, the attempt to hold it says.
pub async fn free(session: &Session, sql: &Client, hold: Hold<'_>) -> Result<(), SessionError> {
    let lets_go = async || -> Result<(), tokio_postgres::Error> {
        while hold.holder(sql).await?.is_some() {
            sleep(LOOK).await;
        }
        Ok(())
    };
    if let Ok(free) = timeout(COURTESY, lets_go()).await {
        return Ok(free?);
    }
    let Some(pid) = hold.holder(sql).await? else { return Ok(()) };
    if !session.lease.holds() || !writes_here(session, sql).await? {
        return Ok(());
    }
    session.metrics.evictions.with_label_values(&[session.tenant.id.as_str()]).inc();
    tracing::warn!(tenant = %session.tenant.id, ?hold, pid, "ending the connection of an ingester that has lost its lease");
    for _ in 0..TIMES {
        // Nobody else who came meanwhile, as far as that can be told.
        if hold.holder(sql).await? == Some(pid) && session.lease.holds() {
            sql.execute("SELECT pg_terminate_backend($1)", &[&pid]).await?;
        }
        if let Ok(free) = timeout(AGAIN, lets_go()).await {
            return Ok(free?);
        }
    }
    Ok(())
}

/// Whether our Redis has seen the newest fencing token. It has not for a moment while a session begins, nor after Redis
/// lost something: then the walsender ends by wal_sender_timeout.
async fn writes_here(session: &Session, sql: &Client) -> Result<bool, SessionError> {
    let drawn = "SELECT coalesce(pg_sequence_last_value('posduif_engine.fencing_token'), 0)";
    let drawn: i64 = sql.query_one(drawn, &[]).await?.get(0);
    let mut redis = link::open(&session.redis).await?;
    Ok(drawn <= LogWriter::highest_token(&mut redis, &session.tenant.id).await?)
}
