//! What is wanted for a tenant and what its log was fed from in, what its session does out.

use posduif_changelog::{LogError, LogState};
use posduif_model::Source;
use tokio_postgres::Client;

use super::{Session, SessionError};
use crate::{capture, health, visibility::Snapshot, wal::Slot};

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Follows the WAL; with `leave` until polling can go on where it ends.
    Follow { leave: bool },
    /// Polls; with `leave` until a slot can go on where it ends.
    Poll { leave: bool },
}

/// Looks at the server and the log. Whoever takes the tenant over judges again: this only decides what is tried.
pub async fn choose(session: &Session, sql: &Client) -> Result<Course, SessionError> {
    let level: String = sql.query_one("SHOW wal_level", &[]).await?.get(0);
    let component = health::source_component(session.tenant.id.as_str());
    let wanted = match session.tenant.source(&session.wal) {
        Source::Wal if level != "logical" => {
            let reason = format!(
                "wal_level is {level}, so the tables are polled; set wal_level = logical in postgresql.conf and restart \
                 PostgreSQL, or sync.wal.enabled: false"
            );
            session.readiness.degraded(component, reason);
            Source::Polling
        }
        wanted => {
            session.readiness.forget(&component);
            wanted
        }
    };
    let log = match log(session).await {
        Err(LogError::Corrupt(_)) => None,
        log => log?,
    };
    let source = log.as_ref().map_or(wanted, |log| log.supply.source);
    // One that is cold is warmed by whatever happens to it.
    let is_cold = !session.wal.cold_after.is_zero() && (source, wanted) == (Source::Polling, Source::Wal);
    let leave = wanted != source && !is_cold;
    let Some(log) = log.filter(|log| log.supply.source == Source::Wal) else {
        return Ok(match wanted {
            Source::Wal if !leave && !is_cold => Course::Follow { leave },
            _ => Course::Poll { leave },
        });
    };
    let name = session.wal.slot_name(session.tenant.url.database());
    let usable = level == "logical" && Slot::find(sql, &name).await?.is_some_and(|slot| slot.fault.is_none());
    Ok(match (usable, wanted) {
        (true, _) => Course::Follow { leave },
        (false, Source::Polling) => Course::Poll { leave: false },
        (false, Source::Wal) if is_known(session, sql, &log).await? => Course::Poll { leave: true },
        (false, Source::Wal) => Course::Follow { leave: false },
    })
}

/// Whether it can be found out what changed since the newest change that the log has.
async fn is_known(session: &Session, sql: &Client, log: &LogState) -> Result<bool, SessionError> {
    let Some(seen) = log.supply.seen.as_ref().and_then(|seen| seen.parse::<Snapshot>().ok()) else {
        return Ok(false);
    };
    let standing = capture::standing(sql, &session.rules).await?;
    Ok(log.broken.is_none() && standing.is_some_and(|standing| standing.tells_since(&seen)))
}

async fn log(session: &Session) -> Result<Option<LogState>, LogError> {
    let mut redis = crate::link::open(&session.redis).await?;
    LogState::read(&mut redis, &session.tenant.id).await
}
