//! A device's cursor in, its next page out.

use std::time::Duration;

use posduif_changelog::LogState;
use posduif_model::{
    DeviceId, Lsn, UserId,
    cursor::{Cursor, Resume},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    SyncError,
    body::{Body, Tail},
    log_page,
    stage::{self, Plan, Replay, Since},
    table_page::{self, Place},
};
use crate::{
    app::App,
    store::{StoreError, wal},
    tenant::Tenant,
};

/// Who reads, and how much at a time.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub tenant: &'a Tenant,
    pub device: &'a DeviceId,
    pub user: UserId,
    /// The wished number of rows or log entries; a larger transaction is sent whole.
    pub limit: usize,
}

/// A page before its cursor is sealed.
#[derive(Debug)]
pub(super) struct Page {
    pub body: Body,
    pub at: Resume,
    pub lsn: Lsn,
    pub has_more: bool,
    pub snapshot: bool,
}

const FIRST_POLL: Duration = Duration::from_millis(20);
const LONGEST_POLL: Duration = Duration::from_millis(100);

/// Reads the next page as a JSON text.
///
/// # Errors
/// See [`SyncError`]; the device keeps its cursor and asks again, or begins again after `Expired`.
pub async fn next_page(app: &App, reader: &Reader<'_>, since: &Since) -> Result<String, SyncError> {
    let state = state_of(reader).await?;
    let page = match stage::plan(since, &state, app.rules.hash())? {
        Plan::Nothing => nothing(since, &state)?,
        Plan::Log { after, replay } => {
            if replay.is_some() {
                // Else a device that replays for longer than a lease lasts would begin again and again.
                reader.tenant.log.lease(&state.epoch, after, reader.device).await?;
            }
            match log_page::read(reader, &state, after, replay).await? {
                Some(page) => page,
                None => again(app, reader, since).await?,
            }
        }
        Plan::Tables { from, part, after } => {
            reader.tenant.log.lease(&state.epoch, from, reader.device).await?;
            table_page::read(reader, &app.rules, Place { from, part, after }).await?
        }
        Plan::Mark { from } => {
            reader.tenant.log.lease(&state.epoch, from, reader.device).await?;
            let (state, until) = caught_up(app, reader, since).await?;
            let replay = Some(Replay { until });
            log_page::read(reader, &state, from, replay).await?.ok_or(BEHIND)?
        }
    };
    let cursor = Cursor { epoch: state.epoch, rules: state.rules, timeline: state.timeline, at: page.at };
    let tail = Tail {
        cursor: app.cursors.seal(&cursor, &reader.tenant.id, reader.device, reader.user)?,
        lsn: page.lsn,
        has_more: page.has_more,
        snapshot: page.snapshot,
        sync_timestamp: app.clock.now(),
    };
    Ok(page.body.finish(&tail))
}

const LATE: SyncError = SyncError::NotReady("the log has not caught up with the snapshot yet");
const BEHIND: SyncError = SyncError::NotReady("the log fell behind and is being written again");

async fn state_of(reader: &Reader<'_>) -> Result<LogState, SyncError> {
    let state = reader.tenant.log.state().await?;
    state.ok_or(SyncError::NotReady("the tenant has no log yet"))
}

/// The page of a device that holds all that may be seen: its own cursor, no look at a table or a bucket.
fn nothing(since: &Since, state: &LogState) -> Result<Page, SyncError> {
    let Since::Cursor(cursor) = since else { return Err(BEHIND) };
    let (at, lsn) = (cursor.at.clone(), state.watermark.end);
    Ok(Page { body: Body::default(), at, lsn, has_more: false, snapshot: false })
}

/// Reads once more after the log moved between two looks: Redis fell back, or a compaction went past the watermark seen.
async fn again(app: &App, reader: &Reader<'_>, since: &Since) -> Result<Page, SyncError> {
    let state = state_of(reader).await?;
    match stage::plan(since, &state, app.rules.hash())? {
        Plan::Log { after, replay } => log_page::read(reader, &state, after, replay).await?.ok_or(BEHIND),
        Plan::Nothing => nothing(since, &state),
        Plan::Tables { .. } | Plan::Mark { .. } => Err(BEHIND),
    }
}

/// Marks the WAL after the last table page and waits until the log holds all that the pages may have seen.
///
/// Everything that a page could see was on PostgreSQL's disk before the page was sent, so no page held a row that a
/// crash between it and the mark has taken away.
async fn caught_up(app: &App, reader: &Reader<'_>, since: &Since) -> Result<(LogState, Lsn), SyncError> {
    let deadline = Instant::now() + app.api.snapshot_wait;
    // The mark's commit may have to wait for a standby.
    let until = timeout_at(deadline, mark(reader)).await.map_err(|_| LATE)??;
    let mut pause = FIRST_POLL;
    loop {
        let state = state_of(reader).await?;
        // Another epoch or a risen floor ends the wait: the pages cannot be completed any more.
        stage::plan(since, &state, app.rules.hash())?;
        if state.watermark.end >= until {
            return Ok((state, until));
        }
        if Instant::now() + pause > deadline {
            return Err(LATE);
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_POLL);
    }
}

async fn mark(reader: &Reader<'_>) -> Result<Lsn, StoreError> {
    let marked = reader.tenant.database.run(async |client| {
        wal::emit(client, wal::MARK, "").await?;
        wal::insert_lsn(client).await
    });
    marked.await
}
