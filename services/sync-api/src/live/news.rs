//! A user's entries of the log in, what its connections are told of them out; no I/O.

use std::sync::Arc;

use posduif_changelog::Entry;
use posduif_model::{Change, DeviceId, Lsn, Op, UserId};
use serde::Deserialize;

use super::{
    connection::{Audience, Connection},
    event::Event,
};

/// What is looked at of a message's row; another table of that name has none of it.
#[derive(Deserialize)]
struct Row {
    id: String,
    sender_id: Option<UserId>,
    recipient_id: Option<UserId>,
    status: Option<String>,
}

/// What one transaction means for one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitNews {
    commit: Lsn,
    /// The device that made it.
    origin: Option<DeviceId>,
    /// Messages to the user that its devices do not have.
    waiting: Vec<Arc<str>>,
    /// Messages to the user that have arrived, which those to a web user do by being stored.
    arrived: Vec<Arc<str>>,
    /// Messages of the user that were read.
    read: Vec<Arc<str>>,
    entries: u64,
}

/// What a stretch of the log means for one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    commits: Vec<CommitNews>,
    /// There is more than was read.
    more: bool,
}

fn message(change: &Change) -> Option<Row> {
    let is_message = change.table.schema() == "public" && change.table.name() == "messages";
    (change.op == Op::Put && is_message).then(|| serde_json::from_str(&change.row).ok())?
}

impl News {
    /// `more` says that entries after these were not read.
    pub fn of(user: UserId, entries: &[Entry], more: bool) -> Self {
        let mut news = News { commits: Vec::new(), more };
        for entry in entries {
            let commit = entry.position.commit;
            if news.commits.last().is_none_or(|last| last.commit != commit) {
                news.commits.push(CommitNews {
                    commit,
                    origin: entry.origin.clone(),
                    waiting: Vec::new(),
                    arrived: Vec::new(),
                    read: Vec::new(),
                    entries: 0,
                });
            }
            let Some(last) = news.commits.last_mut() else { continue };
            last.entries += 1;
            for row in entry.changes.iter().filter_map(message) {
                let (is_to, is_of) = (row.recipient_id == Some(user), row.sender_id == Some(user));
                match row.status.as_deref() {
                    Some("pending_sync") if is_to => last.waiting.push(row.id.into()),
                    Some("synced") if is_to => last.arrived.push(row.id.into()),
                    Some("read") if is_of => last.read.push(row.id.into()),
                    _ => {}
                }
            }
        }
        news
    }

    /// There is something to tell, and nobody knows what.
    pub fn unknown() -> Self {
        News { commits: Vec::new(), more: true }
    }

    pub fn is_empty(&self) -> bool {
        self.commits.is_empty() && !self.more
    }

    /// Tells a connection of the user; says whether its buffer was full.
    pub fn tell(&self, connection: &Connection) -> bool {
        match &connection.audience {
            Audience::Device { id, .. } => self.tell_device(id, connection),
            Audience::Web { .. } => self.tell_web(connection),
        }
    }

    /// Per transaction either the messages that came with it, or that there is something.
    fn tell_device(&self, device: &DeviceId, connection: &Connection) -> bool {
        let mut overflowed = false;
        let mut others = 0;
        for news in &self.commits {
            if news.waiting.is_empty() || news.origin.as_ref() == Some(device) {
                others += news.entries;
            } else {
                let events = news.waiting.iter().map(|id| Event::NewMessage { id: id.clone() });
                overflowed |= connection.push(events);
            }
        }
        if others > 0 || self.more {
            connection.owe(others.max(1));
        }
        overflowed
    }

    /// A browser has gone past a transaction with its last event.
    fn tell_web(&self, connection: &Connection) -> bool {
        if self.more {
            connection.owe(1);
            return false;
        }
        let mut overflowed = false;
        for news in &self.commits {
            let arrived = news.arrived.iter().map(|id| Event::Arrived { id: id.clone(), at: None });
            let read = news.read.iter().map(|id| Event::Read { id: id.clone(), at: None });
            let mut events: Vec<Event> = arrived.chain(read).collect();
            if let Some(Event::Arrived { at, .. } | Event::Read { at, .. }) = events.last_mut() {
                *at = Some(news.commit);
            }
            overflowed |= connection.push(events);
        }
        overflowed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::credential::jwt::Subject;

    const ANN: &str = "00000000-0000-0000-0000-00000000000a";
    const BOB: &str = "00000000-0000-0000-0000-00000000000b";

    fn entry(commit: u64, origin: Option<&str>, id: &str, from: &str, to: &str, status: &str) -> Entry {
        let row = json!({"id": id, "sender_id": from, "recipient_id": to, "status": status});
        let change = Change {
            op: Op::Put,
            table: "messages".parse().unwrap(),
            key: json!({"id": id}).to_string(),
            row: row.to_string(),
        };
        let origin = origin.map(|device| device.parse().unwrap());
        Entry { position: format!("{commit}-0").parse().unwrap(), origin, changes: vec![change] }
    }

    fn told(user: &str, audience: Audience, entries: &[Entry]) -> Vec<Event> {
        let user = user.parse().unwrap();
        let connection = Connection::new(1, user, audience, false, 10);
        assert!(!News::of(user, entries, false).tell(&connection));
        connection.take().map(|mail| mail.events).unwrap_or_default()
    }

    fn phone() -> Audience {
        Audience::Device { id: "phone".parse().unwrap(), token_hash: None }
    }

    fn browser() -> Audience {
        let subject = Subject { tenant: "t".parse().unwrap(), user: BOB.parse().unwrap(), log_ins: 0 };
        Audience::Web { subject, expires_at: chrono::DateTime::UNIX_EPOCH }
    }

    #[test]
    fn a_device_hears_of_messages_that_wait_for_it_and_of_the_rest_in_one_hint() {
        let entries = [
            entry(1, None, "m1", BOB, ANN, "pending_sync"),
            entry(2, Some("phone"), "m2", ANN, BOB, "synced"),
            entry(3, None, "m3", BOB, ANN, "synced"),
        ];
        let expected = [Event::NewMessage { id: "m1".into() }, Event::SyncRequired { pending: 2 }];
        assert_eq!(told(ANN, phone(), &entries), expected);
    }

    #[test]
    fn a_note_to_oneself_is_news_for_the_users_other_devices_only() {
        let entries = [entry(1, Some("phone"), "m1", ANN, ANN, "pending_sync")];
        assert_eq!(told(ANN, phone(), &entries), [Event::SyncRequired { pending: 1 }]);
        let tablet = Audience::Device { id: "tablet".parse().unwrap(), token_hash: None };
        assert_eq!(told(ANN, tablet, &entries), [Event::NewMessage { id: "m1".into() }]);
    }

    #[test]
    fn a_browser_hears_what_came_and_what_was_read_and_passes_whole_transactions() {
        let entries = [
            entry(1, None, "m1", ANN, BOB, "synced"),
            entry(1, None, "m2", ANN, BOB, "synced"),
            entry(2, None, "m3", BOB, ANN, "read"),
            entry(3, None, "m4", BOB, ANN, "pending_sync"),
        ];
        let expected = [
            Event::Arrived { id: "m1".into(), at: None },
            Event::Arrived { id: "m2".into(), at: Some(Lsn::new(1)) },
            Event::Read { id: "m3".into(), at: Some(Lsn::new(2)) },
        ];
        assert_eq!(told(BOB, browser(), &entries), expected);
    }

    #[test]
    fn rows_that_are_no_messages_are_changes_like_others() {
        let mut odd = entry(1, None, "m1", BOB, ANN, "pending_sync");
        odd.changes[0].row = "{\"id\":7}".into();
        assert_eq!(told(ANN, phone(), &[odd]), [Event::SyncRequired { pending: 1 }]);
    }
}
