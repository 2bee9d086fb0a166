//! A device's cursor in, its next page out.

use std::time::Duration;

use chrono::{DateTime, Utc};
use posduif_changelog::LogState;
use posduif_model::{
    DeviceId, Lsn, UserId,
    cursor::{Confirms, Cursor, Resume},
};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::{
    SyncError, arrival,
    body::{Body, Tail},
    error::OTHER_SERVER,
    log_page::{self, Stretch},
    stage::{self, Plan, Replay, Since},
    table_page::{self, Place},
};
use crate::{
    app::App,
    store::{messages, wal},
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
    pub now: DateTime<Utc>,
}

/// A page as it is sent.
#[derive(Debug)]
pub struct Answer {
    pub body: String,
    /// The cursor in it.
    pub cursor: String,
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

/// Reads the next page as a JSON text, after noting what the cursor confirms.
///
/// # Errors
/// See [`SyncError`]; the device keeps its cursor and asks again, or begins again after `Expired`.
pub async fn next_page(app: &App, reader: &Reader<'_>, since: &Since) -> Result<Answer, SyncError> {
    let (state, confirmed) = reader.tenant.log.look(reader.device).await?;
    let state = state.ok_or(NO_LOG)?;
    reader.tenant.database.follow(&state);
    let plan = stage::plan(since, &state, app.rules.hash())?;
    let unconfirmed = arrival::confirm(reader, since, &state, confirmed).await?;
    page(app, reader, since, state, plan, unconfirmed).await
}

/// Reads on from a cursor that the device has not sent back: it confirms nothing, and the next cursor carries on what it would.
///
/// # Errors
/// As those of [`next_page`].
pub async fn page_after(app: &App, reader: &Reader<'_>, cursor: Cursor) -> Result<Answer, SyncError> {
    let unconfirmed = match cursor.at {
        Resume::Stream { confirms, .. } => confirms,
        _ => None,
    };
    let (since, state) = (Since::Cursor(cursor), state_of(reader).await?);
    let plan = stage::plan(&since, &state, app.rules.hash())?;
    page(app, reader, &since, state, plan, unconfirmed).await
}

/// Notes what a cursor that came back without asking for a page proves to have arrived.
///
/// # Errors
/// As those of [`next_page`].
pub async fn note_arrival(app: &App, reader: &Reader<'_>, cursor: Cursor) -> Result<(), SyncError> {
    let (state, confirmed) = reader.tenant.log.look(reader.device).await?;
    let (state, since) = (state.ok_or(NO_LOG)?, Since::Cursor(cursor));
    stage::plan(&since, &state, app.rules.hash())?;
    arrival::confirm(reader, &since, &state, confirmed).await?;
    Ok(())
}

async fn page(
    app: &App,
    reader: &Reader<'_>,
    since: &Since,
    state: LogState,
    plan: Plan,
    unconfirmed: Option<Confirms>,
) -> Result<Answer, SyncError> {
    let page = match plan {
        Plan::Nothing => nothing(since, &state)?,
        Plan::Log { after, replay, goal } => {
            if replay.is_some() {
                // Else a device that replays for longer than a lease lasts would begin again and again.
                reader.tenant.log.lease(&state.epoch, after, reader.device).await?;
            }
            match log_page::read(reader, &state, Stretch { after, replay, goal, unconfirmed }).await? {
                Some(page) => page,
                None => again(app, reader, since, unconfirmed).await?,
            }
        }
        Plan::Tables { from, part, after } => {
            let _admitted = app.admission.admit(*since == Since::Start).await?;
            reader.tenant.log.lease(&state.epoch, from, reader.device).await?;
            let place = Place { from, part, after, timeline: state.timeline };
            table_page::read(reader, &app.rules, place).await?
        }
        Plan::Mark { from } => {
            reader.tenant.log.lease(&state.epoch, from, reader.device).await?;
            let (state, replay) = caught_up(app, reader, since, from, state.timeline).await?;
            let stretch = Stretch { after: from, replay: Some(replay), goal: None, unconfirmed: None };
            log_page::read(reader, &state, stretch).await?.ok_or(BEHIND)?
        }
    };
    let cursor = Cursor { epoch: state.epoch, rules: state.rules, timeline: state.timeline, at: page.at };
    let cursor = app.cursors.seal(&cursor, &reader.tenant.id, reader.device, reader.user)?;
    let tail = Tail {
        cursor: cursor.clone(),
        lsn: page.lsn,
        has_more: page.has_more,
        snapshot: page.snapshot,
        sync_timestamp: reader.now,
    };
    Ok(Answer { body: page.body.finish(&tail), cursor })
}

const NO_LOG: SyncError = SyncError::NotReady("the tenant has no log yet");
const LATE: SyncError = SyncError::NotReady("the log has not caught up with the snapshot yet");
const BEHIND: SyncError = SyncError::NotReady("the log fell behind and is being written again");

async fn state_of(reader: &Reader<'_>) -> Result<LogState, SyncError> {
    let state = reader.tenant.log.state().await?.ok_or(NO_LOG)?;
    reader.tenant.database.follow(&state);
    Ok(state)
}

/// The page of a device that holds all that may be seen: its own cursor, no look at a table or a bucket.
fn nothing(since: &Since, state: &LogState) -> Result<Page, SyncError> {
    let Since::Cursor(cursor) = since else { return Err(BEHIND) };
    let (at, lsn) = (cursor.at.clone(), state.watermark.end);
    Ok(Page { body: Body::default(), at, lsn, has_more: false, snapshot: false })
}

/// Reads once more after the log moved between two looks: Redis fell back, or a compaction went past the watermark seen.
async fn again(
    app: &App,
    reader: &Reader<'_>,
    since: &Since,
    unconfirmed: Option<Confirms>,
) -> Result<Page, SyncError> {
    let state = state_of(reader).await?;
    match stage::plan(since, &state, app.rules.hash())? {
        Plan::Log { after, replay, goal } => {
            let stretch = Stretch { after, replay, goal, unconfirmed };
            log_page::read(reader, &state, stretch).await?.ok_or(BEHIND)
        }
        Plan::Nothing => nothing(since, &state),
        Plan::Tables { .. } | Plan::Mark { .. } => Err(BEHIND),
    }
}

/// Marks the WAL after the last table page and waits until the log holds all that the pages may have seen.
///
/// Everything that a page could see was on PostgreSQL's disk before the page was sent, so no page held a row that a
/// crash between it and the mark has taken away.
async fn caught_up(
    app: &App,
    reader: &Reader<'_>,
    since: &Since,
    from: Lsn,
    timeline: u32,
) -> Result<(LogState, Replay), SyncError> {
    let deadline = Instant::now() + app.api.snapshot_wait;
    // The mark's commit may have to wait for a standby.
    let (messages, until) = timeout_at(deadline, mark(app, reader, timeline)).await.map_err(|_| LATE)??;
    let mut pause = FIRST_POLL;
    loop {
        let state = state_of(reader).await?;
        // Another epoch or a risen floor ends the wait: the pages cannot be completed any more.
        stage::plan(since, &state, app.rules.hash())?;
        if state.watermark.end >= until {
            if !messages.is_empty() {
                reader.tenant.log.keep_arriving(&state.epoch, reader.device, &messages).await?;
            }
            return Ok((state, Replay { until, from, awaits: !messages.is_empty() }));
        }
        if Instant::now() + pause > deadline {
            return Err(LATE);
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_POLL);
    }
}

async fn mark(app: &App, reader: &Reader<'_>, timeline: u32) -> Result<(Vec<Uuid>, Lsn), SyncError> {
    let _admitted = app.admission.admit(false).await?;
    let marked = reader.tenant.database.run(async |client| {
        let messages = messages::pending(client, reader.user).await?;
        wal::emit(client, wal::MARK, "").await?;
        let until = wal::insert_lsn(client).await?;
        // Positions of another server say nothing of the log.
        match wal::timeline(client).await? == timeline {
            true => Ok((messages, until)),
            false => Err(OTHER_SERVER),
        }
    });
    marked.await
}
