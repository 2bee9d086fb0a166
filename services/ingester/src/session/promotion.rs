//! A log that goes on under a promoted server in, the same log bound to that server out.

use posduif_changelog::{LogState, LogWriter};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::{PATIENCE, SessionError};
use crate::heartbeat;

/// Notes the new timeline, with a heartbeat that only this server has, before anything of it is stored.
///
/// The number of a timeline does not name a history: two standbys that are promoted one after the other may choose the same
/// one, at the same position. The heartbeats of the time before are on both.
pub async fn follow(
    sql: &Client,
    writer: &mut LogWriter,
    log: LogState,
    timeline: u32,
) -> Result<LogState, SessionError> {
    let first = timeout(PATIENCE, heartbeat::first(sql)).await.map_err(|_| SessionError::Silent)??;
    writer.open(&LogState { timeline, heartbeat: Some(first), ..log.clone() }).await?;
    // How late readers are still follows from the heartbeat that they have.
    Ok(LogState { timeline, ..log })
}
