//! Something that happened in, the text of a server-sent event out.

use std::{fmt::Write, sync::Arc};

use posduif_model::{Lsn, UserId};
use serde_json::json;

/// A line that means nothing and shows that the connection lives.
pub const PING: &str = ": ping\n\n";

/// What a connection is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A device shall sync: this message waits for it.
    NewMessage { id: Arc<str> },
    /// A device shall sync; so many changes wait as far as is known.
    SyncRequired { pending: u64 },
    /// What the reader resumed from is gone.
    Resync,
    /// A browser's user got this message.
    Arrived { id: Arc<str>, at: Option<Lsn> },
    /// A message of a browser's user was read.
    Read { id: Arc<str>, at: Option<Lsn> },
    /// A row of users changed.
    UserUpdated { user: UserId, at: Option<Lsn> },
}

impl Event {
    pub fn name(&self) -> &'static str {
        match self {
            Event::NewMessage { .. } => "message",
            Event::SyncRequired { .. } => "sync_required",
            Event::Resync => "resync",
            Event::Arrived { .. } => "new_message",
            Event::Read { .. } => "message_read",
            Event::UserUpdated { .. } => "user_updated",
        }
    }

    /// How far a browser has come with this event; devices know themselves how far they are.
    pub fn at(&self) -> Option<Lsn> {
        match self {
            Event::Arrived { at, .. } | Event::Read { at, .. } | Event::UserUpdated { at, .. } => *at,
            Event::NewMessage { .. } | Event::SyncRequired { .. } | Event::Resync => None,
        }
    }

    /// The event's data; `unread` is what the browser's user has not read, where that is known.
    pub fn data(&self, unread: Option<i64>) -> String {
        let data = match self {
            Event::NewMessage { id } => json!({"type": "new_message", "message_id": **id}),
            Event::SyncRequired { pending } => json!({"type": "sync_required", "pending_count": pending}),
            Event::Resync => json!({"type": "resync"}),
            Event::Arrived { id, .. } => {
                json!({"type": "new_message", "message_id": **id, "unread_count": unread})
            }
            Event::Read { id, .. } => json!({"type": "message_read", "message_id": **id}),
            Event::UserUpdated { user, .. } => json!({"type": "user_updated", "user_id": user}),
        };
        data.to_string()
    }
}

/// Appends one event. A line break inside of `data`, which a JSON text has between its tokens at most, begins another
/// data line; the reader joins them.
pub fn write(out: &mut String, id: Option<&str>, name: &str, data: &str) {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{id}event: {name}");
    for line in data.split('\n').flat_map(|part| part.split('\r')) {
        let _ = writeln!(out, "data: {line}");
    }
    out.push('\n');
}

/// How long the reader waits before it connects again.
pub fn retry(milliseconds: u64) -> String {
    format!("retry: {milliseconds}\n\n")
}

#[cfg(test)]
mod tests {
    use eventsource_stream::{Event as Parsed, EventStream};
    use futures::StreamExt;

    use super::*;

    async fn parsed(text: String) -> Vec<Parsed> {
        let bytes = futures::stream::iter([Ok::<_, std::convert::Infallible>(text.into_bytes())]);
        EventStream::new(bytes).map(Result::unwrap).collect().await
    }

    #[tokio::test]
    async fn a_parser_of_the_standard_reads_what_was_written() {
        let page = "{\"a\":\n [1,\r\n2],\"b\":\"\u{2028}ü\"}";
        let mut text = retry(1234);
        text.push_str(PING);
        write(&mut text, Some("cursor-1"), "change", page);
        write(&mut text, None, "draining", "{}");
        let events = parsed(text).await;
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!((events[0].id.as_str(), events[0].event.as_str()), ("cursor-1", "change"));
        let data: serde_json::Value = serde_json::from_str(&events[0].data).unwrap();
        assert_eq!(data, serde_json::from_str::<serde_json::Value>(page).unwrap());
        assert_eq!((events[1].event.as_str(), events[1].data.as_str()), ("draining", "{}"));
    }

    #[test]
    fn ids_of_rows_cannot_break_out_of_an_event() {
        let id: Arc<str> = "\"\n\nevent: forged".into();
        let mut text = String::new();
        let event = Event::NewMessage { id };
        write(&mut text, None, event.name(), &event.data(None));
        assert_eq!(text.lines().filter(|line| line.starts_with("event:")).count(), 1, "{text}");
    }
}
