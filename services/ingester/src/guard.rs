//! Looks now and then whether the slot is still in this session's hands, and nobody's commit waits for it.

use tokio_postgres::Client;

use crate::wal::Slot;

/// Why a session must not go on although nothing failed.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("PostgreSQL refused")]
    Postgres(#[from] tokio_postgres::Error),
    #[error("replication slot {0} is used by another connection than this ingester's")]
    SlotTaken(String),
    #[error(
        "synchronous_standby_names is {0:?}, which takes the ingester for a standby: commits would wait for \
         themselves to become visible; name the real standbys there"
    )]
    SynchronousStandby(String),
}

/// The name under which PostgreSQL knows the ingester's connections.
pub const APPLICATION: &str = "posduif-ingester";

/// What a session holds.
#[derive(Clone, Debug)]
pub struct Guard {
    pub slot: String,
    /// The walsender of this session.
    pub walsender: i32,
}

impl Guard {
    /// That this connection and the walsender are on one server, that the walsender holds the slot, and that no
    /// commit waits for it.
    pub async fn check(&self, client: &Client) -> Result<(), GuardError> {
        let slot = Slot::find(client, &self.slot).await?;
        if slot.and_then(|slot| slot.active_pid) != Some(self.walsender) {
            return Err(GuardError::SlotTaken(self.slot.clone()));
        }
        // pg_stat_replication would tell, but only to superusers and readers of all statistics.
        let names: String = client.query_one("SHOW synchronous_standby_names", &[]).await?.get(0);
        match names.contains('*') || names.contains(APPLICATION) {
            true => Err(GuardError::SynchronousStandby(names)),
            false => Ok(()),
        }
    }
}
