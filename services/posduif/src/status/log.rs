//! A tenant's log in Redis in, how it stands out.

use posduif_changelog::{Heartbeat, LogError, LogReader, LogState};
use posduif_model::Lsn;

use super::report::LogFacts;

/// Why nothing is known of the log.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("Redis does not answer")]
    Silent,
}

/// What Redis says.
#[derive(Debug)]
pub struct Looked {
    /// `None` where there is no log.
    pub log: Option<Log>,
    /// Settings of Redis that put the log at risk.
    pub concerns: Vec<String>,
}

/// The log and what is compared with the database.
#[derive(Debug)]
pub struct Log {
    pub facts: LogFacts,
    pub end: Lsn,
    pub heartbeat: Option<Heartbeat>,
}

pub async fn look(reader: &LogReader) -> Result<Looked, Trouble> {
    // Also where the log cannot be read: Redis itself must be said to be there.
    let concerns = reader.concerns().await?;
    let Some(state) = reader.state().await? else {
        return Ok(Looked { log: None, concerns });
    };
    let survey = reader.survey(&state.epoch).await?;
    let LogState { epoch, watermark, floor, compacted, broken, unready_below, heartbeat, .. } = state;
    let LogState { system, timeline, supply, .. } = state;
    let facts = LogFacts {
        epoch: epoch.to_string(),
        source: supply.source.as_str(),
        watermark: watermark.commit.to_string(),
        watermark_end: watermark.end.to_string(),
        floor: floor.to_string(),
        compacted: compacted.to_string(),
        commits: survey.commits,
        retained_bytes: survey.bytes(),
        shared_entries: survey.shared_entries,
        snapshots_under_way: survey.leases,
        snapshots_wait: unready_below.is_some(),
        broken,
        system,
        timeline,
    };
    Ok(Looked { log: Some(Log { facts, end: watermark.end, heartbeat }), concerns })
}
