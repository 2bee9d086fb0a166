//! Where a reader of rows is in, the event with its next rows out: the very page that a sync would get.

use std::sync::Arc;

use serde::{Deserialize, de::IgnoredAny};

use super::{connection::Connection, hub::Hub};
use crate::{
    sync::{
        SyncError,
        incoming::{self, Answer, Reader},
    },
    tenant::Tenant,
};

/// What is to be done about rows that wait.
pub(super) enum Rows {
    /// Send this page; where `more` is true there are more.
    Page { cursor: String, text: String, more: bool },
    /// There is nothing for this reader.
    Nothing,
    /// They are too many for an event: the reader fetches them, and gets no rows here until then.
    TooLarge,
    /// The log no longer continues what the reader has.
    Expired,
    /// Not now.
    Later,
}

/// The members of a page that matter here.
#[derive(Deserialize)]
struct Told {
    has_more: bool,
    messages: Vec<IgnoredAny>,
    users: Vec<IgnoredAny>,
    changes: Vec<IgnoredAny>,
    deleted: Deleted,
}

#[derive(Deserialize)]
struct Deleted {
    messages: Vec<IgnoredAny>,
    users: Vec<IgnoredAny>,
}

impl Told {
    fn is_empty(&self) -> bool {
        let lists = [&self.messages, &self.users, &self.changes, &self.deleted.messages, &self.deleted.users];
        lists.iter().all(|list| list.is_empty())
    }
}

/// Reads on from where the connection is; a few connections of a replica at a time.
pub(super) async fn next(hub: &Hub, tenant: &Arc<Tenant>, connection: &Connection) -> Rows {
    let (Some(device), Some(cursor)) = (connection.audience.device(), connection.base()) else {
        return Rows::Nothing;
    };
    let Ok(_turn) = hub.page_readers.acquire().await else { return Rows::Later };
    let limit = usize::try_from(hub.app.sync.batch_size).unwrap_or(usize::MAX);
    let reader = Reader { tenant, device, user: connection.user, limit, now: hub.app.clock.now() };
    // That it was sent does not say that it arrived: only the device's own word does.
    let Answer { body: text, cursor } = match incoming::page_after(&hub.app, &reader, cursor).await {
        Ok(answer) => answer,
        Err(SyncError::Expired) => return Rows::Expired,
        Err(error) => {
            tracing::debug!(tenant = %tenant.id, %error, "rows for a live connection were not read");
            return Rows::Later;
        }
    };
    if text.len() > hub.app.api.sse.max_page_bytes {
        return Rows::TooLarge;
    }
    let Ok(told) = serde_json::from_str::<Told>(&text) else { return Rows::TooLarge };
    // It was sealed a moment ago.
    if let Ok(opened) = hub.app.cursors.open(&cursor, &tenant.id, device, connection.user) {
        connection.advance(opened);
    }
    match told.is_empty() {
        true if told.has_more => Rows::Later,
        true => Rows::Nothing,
        false => Rows::Page { cursor, text, more: told.has_more },
    }
}
