//! A stretch of the log in, one page of it out.

use posduif_changelog::{LogState, fold::fold, reader::Read};
use posduif_model::{Bucket, Lsn, cursor::Resume};

use super::{
    SyncError,
    body::Body,
    incoming::{Page, Reader},
    stage::Replay,
};

/// Reads on after `after`, up to the watermark of `state`; `None` when the log moved on or back meanwhile.
pub(super) async fn read(
    reader: &Reader<'_>,
    state: &LogState,
    after: Lsn,
    replay: Option<Replay>,
) -> Result<Option<Page>, SyncError> {
    let watermark = state.watermark;
    let buckets = [Bucket::Shared, Bucket::User(reader.user)];
    let read = reader.tenant.log.read(&state.epoch, &buckets, after, watermark.commit, reader.limit).await?;
    let page = match read {
        Read::Page(page) => page,
        Read::Expired => return Err(SyncError::Expired),
        Read::Moved => return Ok(None),
    };
    let through = page.through;
    let mut body = Body::default();
    for last in fold(page.entries, |entry| entry.origin.as_ref() == Some(reader.device)) {
        body.push_final(&last)?;
    }
    let is_complete = through >= watermark.commit;
    let at = match replay {
        Some(Replay { until }) if !is_complete => Resume::Replay { commit: through, until },
        _ => Resume::Stream { commit: through },
    };
    let lsn = if is_complete { watermark.end } else { through };
    Ok(Some(Page { body, at, lsn, has_more: !is_complete, snapshot: replay.is_some() }))
}
