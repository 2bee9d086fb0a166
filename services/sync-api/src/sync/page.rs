//! What readers see of the page that `body` writes piece by piece.

use std::collections::HashMap;

use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// A page of what is new.
#[derive(ToSchema)]
#[schema(example = json!({
    "messages": [{
        "own": true, "id": "5b0b6a3e-0f6e-4d58-9d0e-3f1c2d9a7e01", "sender_id": "2a33d4a6-4c1f-44f5-ba4d-3f1a370c7a38",
        "recipient_id": "f8c1ebd0-0c52-487d-a2a8-8b90bb90b1af", "content": "Hello Bob", "status": "synced",
        "created_at": "2026-11-23T10:44:00Z", "updated_at": "2026-11-23T10:44:00Z",
        "synced_at": "2026-11-23T10:43:58.417523Z", "read_at": null,
    }],
    "users": [],
    "changes": [{
        "table": "public.tasks", "op": "upsert", "key": {"id": 7}, "row": {"id": 7, "title": "Milk", "done": false},
        "lsn": "0/1C341B8", "own": false,
    }],
    "deleted": {"messages": [], "users": []}, "cursor": "owXI2SfwQkEt", "lsn": "0/1C341B8", "has_more": false,
    "snapshot": false, "compressed": false, "sync_timestamp": "2026-11-23T10:43:59.449Z",
}))]
pub struct Page {
    /// Whole rows of `public.messages`; `"own":true` where this device's upload made the version.
    pub messages: Vec<HashMap<String, Value>>,
    /// Whole rows of `public.users`.
    pub users: Vec<HashMap<String, Value>>,
    /// The other tables in commit order; truncates, of any table, first.
    pub changes: Vec<PageChange>,
    /// What is gone, or not visible any more.
    pub deleted: Deleted,
    /// Opaque, at most 16 KiB; kept with the page and sent back for the next one.
    pub cursor: String,
    /// Once the pages up to this one are applied, the device has its rows up to this position of the WAL.
    #[schema(pattern = "^[0-9A-F]{1,8}/[0-9A-F]{1,8}$")]
    pub lsn: String,
    /// True: ask again at once, and show nothing of a snapshot before it is false.
    pub has_more: bool,
    /// This page is part of a snapshot.
    pub snapshot: bool,
    /// Always false; how a body is encoded stands in `Content-Encoding`.
    pub compressed: bool,
    /// The server's clock; it orders nothing.
    #[schema(format = DateTime)]
    pub sync_timestamp: String,
}

/// A change of a row of a table that has no list of its own.
#[derive(ToSchema)]
pub struct PageChange {
    pub table: String,
    /// `upsert`, `delete` (`row` is null) or `truncate` (`key` and `row` are null).
    #[schema(pattern = "^(upsert|delete|truncate)$")]
    pub op: String,
    pub key: Option<HashMap<String, Value>>,
    pub row: Option<HashMap<String, Value>>,
    #[schema(pattern = "^[0-9A-F]{1,8}/[0-9A-F]{1,8}$")]
    pub lsn: String,
    /// This device's upload made the version.
    pub own: bool,
}

/// Ids of rows.
#[derive(ToSchema)]
pub struct Deleted {
    pub messages: Vec<Uuid>,
    pub users: Vec<Uuid>,
}
