//! A stretch of the log in, one page of it out.

use posduif_changelog::{LogState, fold::fold, reader::Read};
use posduif_model::{
    Bucket, Lsn,
    cursor::{Confirms, Goal, Resume},
};

use super::{
    SyncError,
    arrival::is_arriving,
    body::Body,
    incoming::{Page, Reader},
    stage::Replay,
};

/// What is read, and what of earlier pages is still to be confirmed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub after: Lsn,
    pub replay: Option<Replay>,
    /// Where the catch-up ends that earlier pages began: where the log has grown meanwhile, it does not grow with it. Else a
    /// device that is slower than those who write would never come to an end, and show nothing.
    pub goal: Option<Goal>,
    /// What the device's cursor said and could not be noted yet.
    pub unconfirmed: Option<Confirms>,
}

/// Reads on, up to the watermark of `state`; `None` when the log moved on or back meanwhile.
pub(super) async fn read(
    reader: &Reader<'_>,
    state: &LogState,
    stretch: Stretch,
) -> Result<Option<Page>, SyncError> {
    let (Stretch { after, replay, goal, unconfirmed }, watermark) = (stretch, state.watermark);
    let newest = Goal { commit: watermark.commit, end: watermark.end };
    // Below the compaction mark no state is whole, and above the watermark there is none, where Redis fell back.
    let may_end =
        |goal: &Goal| goal.commit > after && (state.compacted..newest.commit).contains(&goal.commit);
    let goal = goal.filter(may_end).unwrap_or(newest);
    let buckets = [Bucket::Shared, Bucket::User(reader.user)];
    let read = reader.tenant.log.read(&state.epoch, &buckets, after, goal.commit, reader.limit).await?;
    let page = match read {
        Read::Page(page) => page,
        Read::Expired => return Err(SyncError::Expired),
        Read::Moved => return Ok(None),
    };
    let commit = page.through;
    let mut body = Body::default();
    let mut awaits = false;
    for last in fold(page.entries, |entry| entry.origin.as_ref() == Some(reader.device)) {
        awaits |= is_arriving(&last.change, reader.user).is_some();
        body.push_final(&last)?;
    }
    let is_complete = commit >= goal.commit;
    let next = (!is_complete).then_some(goal);
    let at = match replay {
        Some(Replay { until, from, awaits: before }) if !is_complete => {
            Resume::Replay { commit, until, from, awaits: before || awaits, goal: next }
        }
        Some(Replay { from, awaits: before, .. }) => {
            let confirms = (before || awaits).then_some(Confirms { from, tables: true });
            Resume::Stream { commit, confirms, goal: None }
        }
        None => {
            let here = awaits.then_some(Confirms { from: after, tables: false });
            Resume::Stream { commit, confirms: unconfirmed.or(here), goal: next }
        }
    };
    let lsn = if is_complete { goal.end } else { commit };
    Ok(Some(Page { body, at, lsn, has_more: !is_complete, snapshot: replay.is_some() }))
}
