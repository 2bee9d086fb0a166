//! The items of an upload in, what is to be done with each out; one bad item never spoils another.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    change::{self, RowWrite, Writer},
    count,
    lenient::Lenient,
    message,
    raw_items::RawItems,
};
use crate::{
    code::Code,
    store::{messages::NewMessage, upload_receipts::UploadKey},
};

pub use super::raw_items::MOST_ITEMS;

/// The longest name of an upload.
const LONGEST_ID: usize = 64;

/// An upload whose items are not looked at yet.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({
    "upload_id": "7f0c2a9e-93b1-4d0a-8f55-0d4a6b1c2e3f",
    "messages": [{
        "id": "5b0b6a3e-0f6e-4d58-9d0e-3f1c2d9a7e01", "recipient_id": "f8c1ebd0-0c52-487d-a2a8-8b90bb90b1af",
        "content": "Hello Bob", "created_at": "2026-11-23T10:44:00Z",
    }],
    "changes": [
        {"table": "public.tasks", "op": "upsert", "key": {"id": 7}, "row": {"title": "Milk", "updated_at": "2026-11-23T09:00:00Z"}},
        {"table": "public.tasks", "op": "delete", "key": {"id": 8}},
    ],
    "reads": ["2ee2416c-347d-4997-9ed5-a2ab9a7d84f4"],
    "pending_outgoing_count": 0,
}))]
pub struct Upload<'a> {
    /// Names the upload for 30 days: the device that repeats it gets the first answer, and nothing is done. The same id with
    /// another body is a 409.
    #[schema(pattern = "^[A-Za-z0-9._:-]{1,64}$")]
    upload_id: Option<String>,
    /// The writes that stay on the device.
    #[serde(default, deserialize_with = "count::optional")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 4294967295u32)]
    pub pending_outgoing_count: Option<u32>,
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<Lenient<message::Sent>>>)]
    messages: Option<RawItems<'a>>,
    /// Rows of `public.users`: the device's own user, by `id`, with granted columns and `updated_at`.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    users: Option<RawItems<'a>>,
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<Lenient<change::Change<'a>>>>)]
    changes: Option<RawItems<'a>>,
    /// Ids of received messages that were read.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<serde_json::Value>>)]
    reads: Option<RawItems<'a>>,
}

/// The upload's name cannot be one.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("upload_id has 1 to {LONGEST_ID} characters from A-Z a-z 0-9 . _ : -")]
pub struct InvalidUploadId;

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
    Write(RowWrite),
    MarkRead(Uuid),
}

/// Why an item was not taken; no text quotes a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub error: String,
}

impl Refusal {
    pub fn new(code: Code, error: impl Into<String>) -> Self {
        Refusal { code, error: error.into() }
    }

    pub fn invalid(error: impl Into<String>) -> Self {
        Refusal::new(Code::ValidationError, error)
    }

    pub fn no_such_row() -> Self {
        Refusal::new(Code::NotFound, "no such row")
    }

    /// The parser's other sentences quote what they found.
    pub fn unreadable(what: &str, error: &serde_json::Error) -> Self {
        let told = error.to_string();
        match told.split(" at line ").next().filter(|told| told.starts_with("missing field")) {
            Some(missing) => Refusal::invalid(format!("not {what}: {missing}")),
            None => Refusal::invalid(format!("not {what}: a member is not what it has to be")),
        }
    }
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

impl Action {
    /// Whether doing it again at another time would do the same.
    fn is_repeatable(&self) -> bool {
        match self {
            Action::Send(_) | Action::MarkRead(_) => true,
            Action::Write(row) => row.version.is_some(),
        }
    }
}

impl Upload<'_> {
    /// How many items there are; of too many, that there are too many.
    pub fn len(&self) -> usize {
        let lists = [&self.messages, &self.users, &self.changes, &self.reads];
        lists.into_iter().flatten().map(RawItems::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every item in the order in which they are taken: messages, users, changes, reads.
    ///
    /// What others may refer to comes first.
    pub fn items(&self, writer: &Writer<'_>) -> Vec<Item> {
        let messages = self.messages.iter().flat_map(RawItems::iter).map(|raw| Item {
            name: Name::Message(Label::of(raw).id),
            action: writer
                .grants_messages()
                .and_then(|()| message::parse(raw.get(), writer.user, writer.now).map(Action::Send)),
        });
        let users = self.users.iter().flat_map(RawItems::iter).map(|raw| Item {
            name: Name::Row { table: "public.users".into(), key: json!({ "id": Label::of(raw).id }) },
            action: change::user(raw.get(), writer),
        });
        let changes = self.changes.iter().flat_map(RawItems::iter).map(|raw| {
            let Label { table, key, .. } = Label::of(raw);
            Item { name: Name::Row { table, key }, action: change::parse(raw.get(), writer) }
        });
        let reads = self
            .reads
            .iter()
            .flat_map(RawItems::iter)
            .map(|raw| Item { name: row_of_message(raw), action: read(raw) });
        messages.chain(users).chain(changes).chain(reads).collect()
    }

    /// What names the upload, if anything does: the device, or else its body, where doing it again would do the same.
    ///
    /// # Errors
    /// Where the device's name cannot be one.
    pub fn key(&self, body: &str, items: &[Item]) -> Result<Option<UploadKey>, InvalidUploadId> {
        let body_hash: [u8; 32] = Sha256::digest(body.as_bytes()).into();
        let id = match &self.upload_id {
            Some(id) if is_id(id) => id.clone(),
            Some(_) => return Err(InvalidUploadId),
            None => {
                let is_repeatable = |item: &Item| item.action.as_ref().is_ok_and(Action::is_repeatable);
                let refused = |item: &Item| item.action.is_err();
                if items.is_empty() || !items.iter().all(|item| is_repeatable(item) || refused(item)) {
                    return Ok(None);
                }
                // Longer than any name that a device can give; the receipts know it by its beginning.
                let hash: String = body_hash.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("sha256:{hash}")
            }
        };
        Ok(Some(UploadKey { id, body_hash }))
    }

    /// Whether the device itself named the upload.
    pub fn is_named(&self) -> bool {
        self.upload_id.is_some()
    }
}

fn is_id(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=LONGEST_ID).contains(&text.len()) && text.bytes().all(fits)
}

fn read(raw: &RawValue) -> Result<Action, Refusal> {
    let id = serde_json::from_str::<Uuid>(raw.get()).map_err(|_| Refusal::invalid("the id is not a UUID"))?;
    Ok(Action::MarkRead(id))
}

fn row_of_message(raw: &RawValue) -> Name {
    let id: Value = serde_json::from_str(raw.get()).unwrap_or_default();
    Name::Row { table: "public.messages".into(), key: json!({ "id": id }) }
}

/// The time that an upload is taken at, as its answer tells it.
pub fn taken_at(now: DateTime<Utc>) -> DateTime<Utc> {
    chrono::SubsecRound::trunc_subsecs(now, 3)
}

#[cfg(test)]
mod tests;
