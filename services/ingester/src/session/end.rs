//! How the parts of a session ended in, why the session did out.

use std::time::Duration;

use posduif_changelog::LogError;
use posduif_runtime::postgres::{ConnectError, TlsError};
use tokio::{
    task::{JoinError, JoinSet},
    time::timeout,
};

use super::PATIENCE;
use crate::{
    catalog::CatalogError, gate::GateError, guard::GuardError, lookout::LookoutError,
    pipeline::PipelineError, polling::PollError, primary::PrimaryError, standing::Order,
    visibility::InvalidSnapshot, wal::WalError,
};

/// How long the real reason of an end may come after its consequences.
const GRACE: Duration = Duration::from_millis(100);

/// Why a session ended; the tenant's supervisor begins another one.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("PostgreSQL refused")]
    Postgres(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Guard(#[from] GuardError),
    #[error(transparent)]
    Lookout(#[from] LookoutError),
    #[error(transparent)]
    Primary(#[from] PrimaryError),
    #[error("replication slot {0} belongs to another database or plugin; set sync.wal.slot_name")]
    ForeignSlot(String),
    #[error(
        "replication slot {slot} was created {created} times within an hour and is gone again ({why}); not creating \
         another one before the hour is over, because each makes every device resync. wal_removed: raise \
         max_slot_wal_keep_size; idle_timeout: raise idle_replication_slot_timeout; otherwise find out who drops it"
    )]
    SlotKeepsVanishing { slot: String, created: i64, why: String },
    /// No failure: an operator wants the tenant to be left alone.
    #[error(transparent)]
    Stopped(#[from] Order),
    #[error(transparent)]
    Poll(#[from] PollError),
    #[error(transparent)]
    Snapshot(#[from] InvalidSnapshot),
    #[error("{table} cannot be polled: {problem}")]
    Table { table: &'static str, problem: String },
    #[error("the log is fed by polling meanwhile; beginning again")]
    SourceChanged,
    #[error("another ingester polls this tenant (PostgreSQL's process {0})")]
    LockTaken(i32),
    #[error("PostgreSQL did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("the connection to PostgreSQL was closed")]
    Closed,
    #[error("a part of the session panicked")]
    Panicked,
}

/// A part that ended, as its task set reports it.
type Ended = Option<Result<Result<(), SessionError>, JoinError>>;

/// Why the session ended. One failing part closes the ends of others, which may be seen first: what only says that
/// something else is gone waits a moment for the real reason.
pub async fn reason(ended: Ended, parts: &mut JoinSet<Result<(), SessionError>>) -> SessionError {
    let first = outcome(ended);
    if !first.is_consequence() {
        return first;
    }
    let real = async {
        loop {
            let next = outcome(Some(parts.join_next().await?));
            if !next.is_consequence() {
                return Some(next);
            }
        }
    };
    timeout(GRACE, real).await.ok().flatten().unwrap_or(first)
}

fn outcome(ended: Ended) -> SessionError {
    match ended {
        Some(Ok(Err(error))) => error,
        Some(Ok(Ok(()))) | None => SessionError::Closed,
        Some(Err(_)) => SessionError::Panicked,
    }
}

impl SessionError {
    /// What failed, as a constant word: the value of a metric's label.
    pub fn word(&self) -> &'static str {
        match self {
            SessionError::Connect(_) | SessionError::Tls(_) | SessionError::Postgres(_) => "postgres",
            SessionError::Primary(PrimaryError::Postgres(_)) => "postgres",
            SessionError::Primary(PrimaryError::Standby) => "standby",
            SessionError::Silent | SessionError::Closed => "postgres",
            SessionError::Catalog(_) => "tables",
            SessionError::Lookout(error) | SessionError::Pipeline(PipelineError::Lookout(error)) => {
                match error {
                    LookoutError::Catalog(_) | LookoutError::TablesChanged(_) => "tables",
                    LookoutError::Superseded => "fenced",
                    LookoutError::Postgres(_) | LookoutError::Snapshot(_) | LookoutError::Silent => {
                        "postgres"
                    }
                }
            }
            SessionError::Wal(_) => "replication",
            SessionError::Log(error)
            | SessionError::Gate(GateError::Log(error))
            | SessionError::Pipeline(PipelineError::Log(error)) => match error {
                LogError::Fenced => "fenced",
                LogError::Diverged(_) | LogError::Corrupt(_) => "diverged",
                LogError::OutOfMemory(_)
                | LogError::Unavailable(_)
                | LogError::Forbidden(_)
                | LogError::Evicting(_) => "redis",
            },
            SessionError::Poll(error) => match error {
                PollError::Log(LogError::Fenced) => "fenced",
                PollError::Log(LogError::Diverged(_) | LogError::Corrupt(_)) => "diverged",
                PollError::Log(_) => "redis",
                PollError::Lookout(_)
                | PollError::Row { .. }
                | PollError::Unknown(_)
                | PollError::Unnoted => "tables",
                PollError::Postgres(_)
                | PollError::Snapshot(_)
                | PollError::Unexpected(_)
                | PollError::Silent => "postgres",
            },
            SessionError::Table { .. } => "tables",
            SessionError::Snapshot(_) => "postgres",
            SessionError::LockTaken(_) | SessionError::SourceChanged => "lock",
            SessionError::Pipeline(_) => "stream",
            SessionError::Gate(_) => "postgres",
            SessionError::ForeignSlot(_) | SessionError::SlotKeepsVanishing { .. } => "slot",
            SessionError::Guard(GuardError::SlotTaken(_)) => "slot",
            SessionError::Guard(_) => "postgres",
            SessionError::Stopped(_) => "stopped",
            SessionError::Panicked => "panic",
        }
    }

    fn is_consequence(&self) -> bool {
        matches!(
            self,
            SessionError::Closed
                | SessionError::Gate(GateError::Abandoned)
                | SessionError::Pipeline(PipelineError::Abandoned)
                | SessionError::Wal(WalError::Abandoned)
        )
    }
}
