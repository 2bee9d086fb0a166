//! A cursor that came back in, the messages that it proves to have arrived noted as such out.
//!
//! No row says at which position it was committed, so the log is asked: whatever it has for the user between the
//! cursor that a page was asked with and the one that it ended with was in that page. Of a snapshot's tables the
//! messages are remembered instead.

use std::collections::HashSet;

use posduif_changelog::{Confirmed, LogState, reader::Read};
use posduif_model::{
    Bucket, Change, Lsn, Op, UserId,
    cursor::{Confirms, Resume},
};
use serde::Deserialize;
use uuid::Uuid;

use super::{SyncError, incoming::Reader, stage::Since};
use crate::{
    store::{
        StoreError,
        messages::PENDING,
        repeat_while_contended,
        sync_metadata::{self, Seen},
    },
    sync::body::List,
};

/// Entries of the log that are looked at in one step.
const STEP: usize = 500;

#[derive(Deserialize)]
struct Arriving<'a> {
    id: Uuid,
    recipient_id: UserId,
    #[serde(borrow)]
    status: std::borrow::Cow<'a, str>,
}

/// The message that this change brings to the user for the first time, as far as the server knows.
pub(super) fn is_arriving(change: &Change, user: UserId) -> Option<Uuid> {
    if change.op != Op::Put || List::of(&change.table) != List::Messages {
        return None;
    }
    let message: Arriving<'_> = serde_json::from_str(&change.row).ok()?;
    (message.recipient_id == user && message.status == PENDING).then_some(message.id)
}

/// Notes what the cursor confirms and how far the device has come. Returns what could not be noted because
/// PostgreSQL is away or Redis fell back: the next cursor carries it on, the page does not wait for it.
///
/// # Errors
/// `Expired` where the log no longer has what is to be confirmed, `Log` where it cannot be asked.
pub(super) async fn confirm(
    reader: &Reader<'_>,
    since: &Since,
    state: &LogState,
    known: Option<Confirmed>,
) -> Result<Option<Confirms>, SyncError> {
    let log = &reader.tenant.log;
    let Since::Cursor(cursor) = since else {
        if known.is_some() {
            log.forget_position(reader.device).await?;
        }
        return Ok(None);
    };
    let Resume::Stream { commit, confirms, .. } = cursor.at else { return Ok(None) };
    let known = known.filter(|known| known.epoch == state.epoch && known.user == reader.user);
    if let Some(confirms) = confirms.filter(|_| known.is_none_or(|known| known.commit < commit)) {
        let Some(messages) = arrived(reader, state, commit, confirms).await? else {
            return Ok(Some(confirms));
        };
        if let Err(error) = note(reader, commit, &messages).await {
            tracing::warn!(tenant = %reader.tenant.id, %error, "arrived messages are noted with the next sync");
            return Ok(Some(confirms));
        }
        if confirms.tables {
            log.forget_arriving(&state.epoch, reader.device).await?;
        }
    }
    if known.is_none_or(|known| known.commit != commit) {
        let at = reader.now.timestamp_millis();
        let position = Confirmed { epoch: state.epoch, commit, user: reader.user, at };
        // A full Redis takes nothing and can still be read: the device gets its page, and confirms again.
        if let Err(error) = log.confirm(reader.device, &position).await {
            tracing::warn!(tenant = %reader.tenant.id, %error, "a device's position is noted with the next sync");
        }
    }
    reader.tenant.sightings.note(reader.device, reader.now, Some(commit));
    Ok(None)
}

/// The messages that the cursor proves to have arrived; `None` while the log does not reach so far again.
async fn arrived(
    reader: &Reader<'_>,
    state: &LogState,
    commit: Lsn,
    confirms: Confirms,
) -> Result<Option<Vec<Uuid>>, SyncError> {
    let mut messages = Vec::new();
    if confirms.tables {
        let log = &reader.tenant.log;
        messages = log.arriving(&state.epoch, reader.device).await?;
        // They may be those of a later answer to the same question, which the network asked twice: what the log has only
        // behind this cursor is not on the device. Looked up after the list, so that it reaches as far.
        let now = log.state().await?.ok_or(SyncError::Expired)?;
        let Some(behind) = logged(reader, state, commit, now.watermark.commit).await? else {
            return Ok(None);
        };
        messages.retain(|message| !behind.contains(message));
    }
    let Some(paged) = logged(reader, state, confirms.from, commit).await? else { return Ok(None) };
    messages.extend(paged);
    Ok(Some(messages))
}

/// The messages that arrive in the log after `after`, up to `upto`; `None` while the log does not reach so far again.
async fn logged(
    reader: &Reader<'_>,
    state: &LogState,
    mut after: Lsn,
    upto: Lsn,
) -> Result<Option<HashSet<Uuid>>, SyncError> {
    let mut messages = HashSet::new();
    while after < upto {
        let bucket = [Bucket::User(reader.user)];
        let page = match reader.tenant.log.read(&state.epoch, &bucket, after, upto, STEP).await? {
            Read::Page(page) => page,
            Read::Expired => return Err(SyncError::Expired),
            Read::Moved => return Ok(None),
        };
        let changes = page.entries.iter().flat_map(|entry| &entry.changes);
        messages.extend(changes.filter_map(|change| is_arriving(change, reader.user)));
        after = page.through;
    }
    Ok(Some(messages))
}

async fn note(reader: &Reader<'_>, commit: Lsn, messages: &[Uuid]) -> Result<(), StoreError> {
    let seen = Seen { device: reader.device.clone(), at: reader.now, commit: Some(commit) };
    let database = &reader.tenant.database;
    repeat_while_contended(async || {
        let noted =
            database.run(async |client| sync_metadata::confirm(client, &seen, reader.user, messages).await);
        noted.await
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "00000000-0000-0000-0000-000000000001";
    const OTHER: &str = "00000000-0000-0000-0000-000000000002";

    fn put(table: &str, recipient: &str, status: &str) -> Change {
        let row = format!(
            r#"{{"id":"{OTHER}","recipient_id":"{recipient}","content":"\u00e9","status":"{status}"}}"#
        );
        Change { op: Op::Put, table: table.parse().unwrap(), key: String::new(), row }
    }

    #[test]
    fn only_pending_messages_to_the_user_arrive() {
        let user = OWN.parse().unwrap();
        assert_eq!(is_arriving(&put("messages", OWN, "pending_sync"), user), Some(OTHER.parse().unwrap()));
        assert_eq!(is_arriving(&put("messages", OTHER, "pending_sync"), user), None);
        assert_eq!(is_arriving(&put("messages", OWN, "read"), user), None);
        assert_eq!(is_arriving(&put("tasks", OWN, "pending_sync"), user), None);
        let gone = Change { op: Op::Delete, ..put("messages", OWN, "pending_sync") };
        assert_eq!(is_arriving(&gone, user), None);
    }
}
