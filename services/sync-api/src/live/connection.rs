//! What one reader shall hear in, in bounded memory, and what it hears next out.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use posduif_model::{DeviceId, UserId, cursor::Cursor};
use tokio::sync::Notify;

use super::event::Event;
use crate::credential::jwt::Subject;

/// Who listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    Device {
        id: DeviceId,
        /// SHA-256 of the token that was presented; absent where ids alone are believed.
        token_hash: Option<String>,
    },
    /// A browser, until its log-in expires or is ended.
    Web { subject: Subject, expires_at: DateTime<Utc> },
}

impl Audience {
    pub fn device(&self) -> Option<&DeviceId> {
        match self {
            Audience::Device { id, .. } => Some(id),
            Audience::Web { .. } => None,
        }
    }

    /// As a label.
    pub fn kind(&self) -> &'static str {
        if self.device().is_some() { "mobile" } else { "web" }
    }
}

/// Why the server ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The replica stops; the reader comes back after so many milliseconds.
    Draining { retry: u64 },
    /// The device was revoked or enrolled again, or the log-in was ended.
    Revoked,
    /// The log-in expired.
    Expired,
    /// Its tenant is no longer served here.
    Removed,
}

impl Ending {
    /// As a label.
    pub fn reason(self) -> &'static str {
        match self {
            Ending::Draining { .. } => "draining",
            Ending::Revoked => "revoked",
            Ending::Expired => "expired",
            Ending::Removed => "removed",
        }
    }
}

/// One open connection, shared by those that have news and by the one that sends them.
#[derive(Debug)]
pub struct Connection {
    /// Unique in this process; spreads what happens to all connections.
    pub number: u64,
    pub user: UserId,
    pub audience: Audience,
    /// Events that may wait.
    room: usize,
    mailbox: Mutex<Mailbox>,
    news: Notify,
}

#[derive(Debug)]
struct Mailbox {
    events: VecDeque<Event>,
    /// Changes that wait and were not told one by one.
    owed: Option<u64>,
    /// What is owed stands for events that found no room, so that those after them are owed too.
    overflowed: bool,
    /// Whether rows are sent, not hints.
    sends_rows: bool,
    /// Whether rows wait.
    has_rows: bool,
    /// Where the reader goes on after this connection; absent until it was let in.
    base: Option<Cursor>,
    /// How many changes of what everyone sees it has been told of, by the tail's count.
    shared_seen: u64,
    ending: Option<Ending>,
    gone: bool,
}

/// What is to be sent next, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mail {
    pub events: Vec<Event>,
    pub has_rows: bool,
    pub ending: Option<Ending>,
}

impl Connection {
    pub fn new(number: u64, user: UserId, audience: Audience, sends_rows: bool, room: usize) -> Self {
        let mailbox = Mailbox {
            events: VecDeque::new(),
            owed: None,
            overflowed: false,
            sends_rows,
            has_rows: false,
            base: None,
            shared_seen: 0,
            ending: None,
            gone: false,
        };
        Connection { number, user, audience, room, mailbox: Mutex::new(mailbox), news: Notify::new() }
    }

    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        // Nothing in here can be left half done.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the reader begins.
    pub fn begin(&self, base: Cursor, shared_seen: u64) {
        let mut mailbox = self.mailbox();
        mailbox.base = Some(base);
        mailbox.shared_seen = shared_seen;
    }

    pub fn base(&self) -> Option<Cursor> {
        self.mailbox().base.clone()
    }

    /// The reader has got everything up to this cursor, if rows are what it gets.
    pub fn advance(&self, base: Cursor) {
        let mut mailbox = self.mailbox();
        if mailbox.sends_rows {
            mailbox.base = Some(base);
        }
    }

    pub fn sends_rows(&self) -> bool {
        self.mailbox().sends_rows
    }

    /// From now on hints only: the reader lacks rows that are not sent here.
    pub fn stop_rows(&self) {
        let mut mailbox = self.mailbox();
        mailbox.sends_rows = false;
        mailbox.has_rows = false;
    }

    /// Adds events; where they find no room, all that wait become one hint. Says whether that happened.
    ///
    /// A reader of rows is told that there are some, and needs no events.
    pub fn push(&self, events: impl IntoIterator<Item = Event>) -> bool {
        let mut mailbox = self.mailbox();
        if mailbox.ending.is_some() {
            return false;
        }
        let mut overflowed = false;
        for event in events {
            if mailbox.sends_rows {
                mailbox.has_rows = true;
            } else if mailbox.overflowed {
                mailbox.owe(1);
            } else if mailbox.events.len() >= self.room {
                let waiting = u64::try_from(mailbox.events.len()).unwrap_or(u64::MAX);
                mailbox.events.clear();
                mailbox.owe(waiting.saturating_add(1));
                mailbox.overflowed = true;
                overflowed = true;
            } else {
                mailbox.events.push_back(event);
            }
        }
        drop(mailbox);
        self.news.notify_one();
        overflowed
    }

    /// Adds changes that are not told one by one.
    pub fn owe(&self, changes: u64) {
        let mut mailbox = self.mailbox();
        if mailbox.ending.is_some() {
            return;
        }
        if mailbox.sends_rows {
            mailbox.has_rows = true;
        } else {
            mailbox.owe(changes);
        }
        drop(mailbox);
        self.news.notify_one();
    }

    /// The reader will hear of all that everyone sees, up to this count.
    pub fn has_heard_shared(&self, count: u64) {
        self.mailbox().shared_seen = count;
    }

    /// How many changes of what everyone sees it has not heard of.
    pub fn unheard_shared(&self, count: u64) -> u64 {
        count.saturating_sub(self.mailbox().shared_seen)
    }

    /// What the reader came from is gone: it begins again, and goes on here from `base`.
    pub fn resync(&self, base: Cursor, shared_seen: u64) {
        let mut mailbox = self.mailbox();
        if mailbox.ending.is_some() {
            return;
        }
        mailbox.events.clear();
        mailbox.owed = None;
        mailbox.overflowed = false;
        mailbox.sends_rows = false;
        mailbox.has_rows = false;
        mailbox.base = Some(base);
        mailbox.shared_seen = shared_seen;
        mailbox.events.push_back(Event::Resync);
        drop(mailbox);
        self.news.notify_one();
    }

    /// Ends the connection once what waits is sent. What happens later is not for it: a reader that does not read may
    /// come to its end long after the device was revoked.
    pub fn end(&self, ending: Ending) {
        self.mailbox().ending.get_or_insert(ending);
        self.news.notify_one();
    }

    /// Nobody reads any more.
    pub fn leave(&self) {
        self.mailbox().gone = true;
    }

    pub fn is_gone(&self) -> bool {
        self.mailbox().gone
    }

    /// What is to be sent now, if anything.
    pub fn take(&self) -> Option<Mail> {
        let mut mailbox = self.mailbox();
        mailbox.overflowed = false;
        let mut events: Vec<Event> = mailbox.events.drain(..).collect();
        // A browser cannot sync: it loads anew what it shows.
        events.extend(mailbox.owed.take().map(|pending| match self.audience {
            Audience::Device { .. } => Event::SyncRequired { pending },
            Audience::Web { .. } => Event::Resync,
        }));
        let mail = Mail { events, has_rows: std::mem::take(&mut mailbox.has_rows), ending: mailbox.ending };
        (mail != Mail::default()).then_some(mail)
    }

    /// Waits until there may be something to take; only its sender waits.
    pub async fn wait(&self) {
        self.news.notified().await;
    }
}

impl Mailbox {
    fn owe(&mut self, changes: u64) {
        self.owed = Some(self.owed.unwrap_or(0).saturating_add(changes));
    }
}

#[cfg(test)]
mod tests {
    use posduif_model::{Epoch, Lsn, cursor::Resume, rule::RulesHash};

    use super::*;

    fn connection(sends_rows: bool, room: usize) -> Connection {
        let user = "00000000-0000-0000-0000-000000000001".parse().unwrap();
        let audience = Audience::Device { id: "d".parse().unwrap(), token_hash: None };
        Connection::new(1, user, audience, sends_rows, room)
    }

    fn messages(n: usize) -> Vec<Event> {
        (0..n).map(|n| Event::NewMessage { id: n.to_string().into() }).collect()
    }

    #[test]
    fn a_slow_reader_gets_one_hint_instead_of_what_has_no_room() {
        let connection = connection(false, 3);
        assert!(!connection.push(messages(3)));
        assert!(connection.push(messages(4)));
        assert!(!connection.push(messages(2)), "what follows is covered by the hint that waits");
        connection.owe(1);
        let mail = connection.take().unwrap();
        assert_eq!(mail.events, [Event::SyncRequired { pending: 10 }]);
        assert_eq!(connection.take(), None);
        connection.push(messages(1));
        assert_eq!(connection.take().unwrap().events, messages(1));
    }

    #[test]
    fn a_reader_of_rows_has_no_events_that_could_pile_up() {
        let connection = connection(true, 3);
        connection.push(messages(9));
        connection.owe(5);
        let rows = Mail { has_rows: true, ..Mail::default() };
        assert_eq!(connection.take(), Some(rows));
        assert_eq!(connection.take(), None);
        connection.stop_rows();
        connection.owe(5);
        assert_eq!(connection.take().unwrap().events, [Event::SyncRequired { pending: 5 }]);
    }

    #[test]
    fn what_happens_after_the_end_is_not_told_to_a_reader_that_was_slow_to_hear_of_it() {
        for sends_rows in [false, true] {
            let connection = connection(sends_rows, 3);
            connection.end(Ending::Revoked);
            connection.push(messages(9));
            connection.owe(1);
            let base = Cursor {
                epoch: Epoch::from_random(1),
                rules: RulesHash::from_stored("r"),
                timeline: 1,
                at: Resume::Stream { commit: Lsn::new(1), confirms: None, goal: None },
            };
            connection.resync(base, 1);
            let mail = Mail { ending: Some(Ending::Revoked), ..Mail::default() };
            assert_eq!(connection.take(), Some(mail));
        }
    }

    #[test]
    fn the_first_reason_to_end_counts_and_comes_last() {
        let connection = connection(false, 3);
        connection.push(messages(1));
        connection.end(Ending::Revoked);
        connection.end(Ending::Draining { retry: 1 });
        let mail = connection.take().unwrap();
        assert_eq!((mail.events.len(), mail.ending), (1, Some(Ending::Revoked)));
    }
}
