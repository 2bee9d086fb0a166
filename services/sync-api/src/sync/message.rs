//! A message as a device sends it in, a message to be stored out.

use chrono::{DateTime, Utc};
use posduif_model::UserId;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{moment, upload::Refusal};
use crate::{code::Code, content::Content, store::messages::NewMessage};

/// A message that was written on the device.
#[derive(Deserialize, ToSchema)]
#[schema(as = SentMessage)]
pub(super) struct Sent {
    /// The device chooses it.
    #[schema(value_type = Uuid)]
    id: String,
    /// The device's own user.
    #[schema(value_type = Option<Uuid>)]
    sender_id: Option<String>,
    #[schema(value_type = Uuid)]
    recipient_id: String,
    /// Not blank, without U+0000, at most 64 KiB of UTF-8.
    content: String,
    #[schema(value_type = Option<DateTime<Utc>>)]
    created_at: Option<String>,
    /// Its version; `created_at` where it is left out.
    #[schema(value_type = Option<DateTime<Utc>>)]
    updated_at: Option<String>,
}

/// Reads the JSON of a message that the user sends.
pub fn parse(json: &str, own: UserId, now: DateTime<Utc>) -> Result<NewMessage, Refusal> {
    let sent: Sent = serde_json::from_str(json).map_err(|error| Refusal::unreadable("a message", &error))?;
    let id = Uuid::try_parse(&sent.id).map_err(|_| Refusal::invalid("id is not a UUID"))?;
    if let Some(sender) = &sent.sender_id {
        let sender: UserId = sender.parse().map_err(|_| Refusal::invalid("sender_id is not a UUID"))?;
        if sender != own {
            return Err(Refusal::new(Code::Forbidden, "a device sends messages as its own user only"));
        }
    }
    let recipient = sent.recipient_id.parse().map_err(|_| Refusal::invalid("recipient_id is not a UUID"))?;
    let content =
        Content::parse(sent.content).map_err(|error| Refusal::new(error.code(), error.to_string()))?;
    let told = |text: Option<String>, name| text.map(|text| moment::parse(&text, name, now)).transpose();
    let (created_at, updated_at) =
        (told(sent.created_at, "created_at")?, told(sent.updated_at, "updated_at")?);
    Ok(NewMessage {
        id,
        recipient,
        content,
        created_at: created_at.unwrap_or(now),
        updated_at: updated_at.or(created_at).unwrap_or(now),
        is_dated: updated_at.or(created_at).is_some(),
    })
}
