//! The items of an upload in, what is to be done with each out; one bad item never spoils another.

use chrono::{DateTime, TimeDelta, Utc};
use posduif_model::UserId;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use uuid::Uuid;

use crate::{code::Code, content::Content, store::messages::NewMessage};

/// The most items of one upload.
pub const MOST_ITEMS: usize = 10_000;
/// How far ahead of the server's a device's clock is believed.
const MOST_AHEAD: TimeDelta = TimeDelta::minutes(5);

/// An upload whose items are not looked at yet.
#[derive(Debug, Default, Deserialize)]
pub struct Upload {
    messages: Option<Vec<Box<RawValue>>>,
    reads: Option<Vec<Box<RawValue>>>,
    users: Option<Vec<Box<RawValue>>>,
    changes: Option<Vec<Box<RawValue>>>,
}

/// One item of an upload.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub name: Name,
    /// What is to be done, or why the item is refused unseen by the database.
    pub action: Result<Action, Refusal>,
}

/// How a failed item is named to the device.
#[derive(Clone, Debug, PartialEq)]
pub enum Name {
    /// The id of a message, null where it cannot be read.
    Message(Value),
    Row {
        table: Value,
        key: Value,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Send(NewMessage),
    MarkRead(Uuid),
}

/// Why an item was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub error: String,
}

impl Refusal {
    pub fn new(code: Code, error: impl Into<String>) -> Self {
        Refusal { code, error: error.into() }
    }
}

fn invalid(error: impl Into<String>) -> Refusal {
    Refusal::new(Code::ValidationError, error)
}

#[derive(Deserialize)]
struct MessageItem {
    id: String,
    sender_id: Option<String>,
    recipient_id: String,
    content: String,
    created_at: Option<String>,
    updated_at: Option<String>,
}

/// What names an item that cannot be read otherwise.
#[derive(Default, Deserialize)]
struct Label {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    table: Value,
    #[serde(default)]
    key: Value,
}

impl Label {
    fn of(raw: &RawValue) -> Self {
        serde_json::from_str(raw.get()).unwrap_or_default()
    }
}

impl Upload {
    /// How many items there are.
    pub fn len(&self) -> usize {
        let lists = [&self.messages, &self.reads, &self.users, &self.changes];
        lists.into_iter().flatten().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every item in the order of the upload: messages, reads, then what is refused as a kind.
    pub fn items(self, own: UserId, now: DateTime<Utc>) -> Vec<Item> {
        let messages = self.messages.unwrap_or_default();
        let messages = messages.iter().map(|raw| Item {
            name: Name::Message(Label::of(raw).id),
            action: message(raw, own, now).map(Action::Send),
        });
        let reads = self.reads.unwrap_or_default();
        let reads = reads.iter().map(|raw| Item { name: row_of_message(raw), action: read(raw) });
        let users = self.users.unwrap_or_default();
        let users = users.iter().map(|raw| Item {
            name: Name::Row { table: "public.users".into(), key: json!({ "id": Label::of(raw).id }) },
            action: Err(invalid("changes of users cannot be uploaded to this version of the server")),
        });
        let changes = self.changes.unwrap_or_default();
        let changes = changes.iter().map(|raw| {
            let Label { table, key, .. } = Label::of(raw);
            let action = Err(invalid("changes of tables cannot be uploaded to this version of the server"));
            Item { name: Name::Row { table, key }, action }
        });
        messages.chain(reads).chain(users).chain(changes).collect()
    }
}

fn message(raw: &RawValue, own: UserId, now: DateTime<Utc>) -> Result<NewMessage, Refusal> {
    let item: MessageItem =
        serde_json::from_str(raw.get()).map_err(|error| invalid(format!("not a message: {error}")))?;
    let id = Uuid::try_parse(&item.id).map_err(|_| invalid("id is not a UUID"))?;
    if let Some(sender) = &item.sender_id {
        let sender: UserId = sender.parse().map_err(|_| invalid("sender_id is not a UUID"))?;
        if sender != own {
            return Err(Refusal::new(Code::Forbidden, "a device sends messages as its own user only"));
        }
    }
    let recipient = item.recipient_id.parse().map_err(|_| invalid("recipient_id is not a UUID"))?;
    let content =
        Content::parse(item.content).map_err(|error| Refusal::new(error.code(), error.to_string()))?;
    let created_at = instant(item.created_at.as_deref(), "created_at", now)?;
    let updated_at = match item.updated_at {
        Some(text) => instant(Some(&text), "updated_at", now)?,
        None => created_at,
    };
    Ok(NewMessage { id, recipient, content, created_at, updated_at })
}

/// A device's time, at most a little ahead of the server's; the server's own where it names none.
fn instant(text: Option<&str>, name: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, Refusal> {
    let Some(text) = text else { return Ok(now) };
    let told = DateTime::parse_from_rfc3339(text)
        .map_err(|_| invalid(format!("{name} is not a time of RFC 3339, such as 2026-01-15T10:45:00Z")))?;
    Ok(told.to_utc().min(now + MOST_AHEAD))
}

fn read(raw: &RawValue) -> Result<Action, Refusal> {
    let id = serde_json::from_str::<Uuid>(raw.get()).map_err(|_| invalid("the id is not a UUID"))?;
    Ok(Action::MarkRead(id))
}

fn row_of_message(raw: &RawValue) -> Name {
    let id: Value = serde_json::from_str(raw.get()).unwrap_or_default();
    Name::Row { table: "public.messages".into(), key: json!({ "id": id }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "00000000-0000-0000-0000-000000000001";
    const OTHER: &str = "00000000-0000-0000-0000-000000000002";

    fn items(body: &str) -> Vec<Item> {
        let now = DateTime::parse_from_rfc3339("2026-01-15T10:45:00Z").unwrap().to_utc();
        serde_json::from_str::<Upload>(body).unwrap().items(OWN.parse().unwrap(), now)
    }

    fn code(message: &str) -> Code {
        let items = items(&format!(r#"{{"messages":[{message}]}}"#));
        items[0].action.as_ref().unwrap_err().code
    }

    fn sent(members: &str) -> String {
        format!(r#"{{"id":"{OWN}","recipient_id":"{OTHER}",{members}}}"#)
    }

    #[test]
    fn each_bad_message_is_refused_by_itself() {
        for (message, expected) in [
            ("7".to_owned(), Code::ValidationError),
            (r#"{"id":"x","recipient_id":"y","content":"z"}"#.to_owned(), Code::ValidationError),
            (sent(r#""content":"a\u0000b""#), Code::ValidationError),
            (sent(r#""content":"\ud800""#), Code::ValidationError),
            (sent(r#""content":" ""#), Code::EmptyMessage),
            (sent(r#""content":"a","created_at":"yesterday""#), Code::ValidationError),
            (sent(&format!(r#""content":"a","sender_id":"{OTHER}""#)), Code::Forbidden),
            (sent(&format!(r#""content":"{}""#, "x".repeat(70_000))), Code::ValidationError),
        ] {
            assert_eq!(code(&message), expected, "{message:.80}");
        }
    }

    #[test]
    fn a_bad_message_is_still_named_where_its_id_can_be_read() {
        let items = items(r#"{"messages":[{"id":"m1","content":"\ud800"},{"id":"\ud800"},[]]}"#);
        let names: Vec<_> = items.iter().map(|item| item.name.clone()).collect();
        assert_eq!(
            names,
            [Name::Message("m1".into()), Name::Message(Value::Null), Name::Message(Value::Null)]
        );
    }

    #[test]
    fn a_clock_far_ahead_is_set_back_to_five_minutes() {
        let far =
            r#""content":"a","created_at":"2026-01-15T12:00:00+01:00","updated_at":"9999-12-31T23:59:59Z""#;
        let items = items(&format!(r#"{{"messages":[{}]}}"#, sent(far)));
        let Ok(Action::Send(message)) = &items[0].action else { panic!("{items:?}") };
        assert_eq!(message.created_at.to_rfc3339(), "2026-01-15T10:50:00+00:00");
        assert_eq!(message.updated_at.to_rfc3339(), "2026-01-15T10:50:00+00:00");
    }

    #[test]
    fn what_cannot_be_taken_yet_is_reported_and_not_dropped() {
        let items = items(&format!(
            r#"{{"reads":["{OWN}","x"],"users":[{{"id":"u"}}],"changes":[{{"table":"public.t","key":{{"k":1}}}}]}}"#
        ));
        assert_eq!(items[0].action, Ok(Action::MarkRead(OWN.parse().unwrap())));
        assert!(
            items[1..]
                .iter()
                .all(|item| item.action.as_ref().is_err_and(|r| r.code == Code::ValidationError))
        );
        assert_eq!(items[3].name, Name::Row { table: "public.t".into(), key: json!({"k": 1}) });
    }
}
