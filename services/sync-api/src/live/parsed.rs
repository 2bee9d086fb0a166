//! The text of `event` and `stream` as a reader has parsed it, for the document.

use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, Type},
};

/// An event of a device's stream, as a reader takes it apart.
#[derive(ToSchema)]
pub struct DeviceEvent {
    #[schema(schema_with = device_events)]
    pub event: String,
    /// A cursor, for `Last-Event-ID`.
    pub id: Option<String>,
    /// JSON.
    #[schema(content_media_type = "application/json")]
    pub data: String,
}

/// An event of a web user's stream, as a reader takes it apart.
#[derive(ToSchema)]
pub struct BrowserEvent {
    #[schema(schema_with = browser_events)]
    pub event: String,
    /// A cursor, for `Last-Event-ID`.
    pub id: Option<String>,
    /// JSON.
    #[schema(content_media_type = "application/json")]
    pub data: String,
}

fn device_events() -> Object {
    named(&["connected", "message", "sync_required", "change", "resync", "draining"])
}

fn browser_events() -> Object {
    named(&["connected", "new_message", "message_read", "user_updated", "resync", "draining"])
}

fn named(events: &[&str]) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(events.iter().copied())).build()
}
