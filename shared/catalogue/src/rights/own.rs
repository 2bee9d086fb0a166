//! What the services do with Posduif's own tables: the list that docs/RIGHTS.md repeats.

use posduif_model::TableName;

use super::{Object, Part, Right};

/// Where the engine keeps what is not the application's.
pub const ENGINE_SCHEMA: &str = "posduif_engine";
/// The messenger's own tables in `public`.
pub const OWN_TABLES: [&str; 5] = ["devices", "enrollment_tokens", "messages", "sync_metadata", "users"];

type Rights = &'static [(&'static str, &'static [(&'static str, &'static [&'static str])])];

/// By table, the privileges and, where not all of it, their columns.
const API: Rights = &[
    (
        "public.users",
        &[
            ("SELECT", &[]),
            ("INSERT", &["username", "user_type", "device_id", "enrolled_at", "enrollment_token_id"]),
            ("UPDATE", &["device_id", "enrolled_at", "enrollment_token_id", "online_status", "last_seen"]),
        ],
    ),
    (
        "public.messages",
        &[
            ("SELECT", &[]),
            (
                "INSERT",
                &[
                    "id",
                    "sender_id",
                    "recipient_id",
                    "content",
                    "status",
                    "created_at",
                    "updated_at",
                    "synced_at",
                ],
            ),
            ("UPDATE", &["content", "status", "updated_at", "synced_at", "read_at"]),
        ],
    ),
    (
        "public.devices",
        &[
            ("SELECT", &[]),
            ("INSERT", &["id", "user_id", "device_info"]),
            ("UPDATE", &["device_info", "last_seen", "revoked_at"]),
        ],
    ),
    (
        "public.enrollment_tokens",
        &[
            ("SELECT", &[]),
            ("INSERT", &["token", "tenant_id", "created_by", "bound_user_id", "expires_at"]),
            ("UPDATE", &["expires_at", "used_at", "device_id"]),
        ],
    ),
    (
        "public.sync_metadata",
        &[
            ("SELECT", &[]),
            ("INSERT", &["device_id", "last_sync_timestamp", "last_synced_lsn"]),
            (
                "UPDATE",
                &[
                    "last_sync_timestamp",
                    "last_synced_lsn",
                    "pending_outgoing_count",
                    "sync_status",
                    "updated_at",
                ],
            ),
        ],
    ),
    ("posduif_engine.user_credentials", &[("SELECT", &[])]),
    // Who operates a tenant only the operator's tool says.
    (
        "posduif_engine.accounts",
        &[
            ("SELECT", &[]),
            ("INSERT", &["user_id", "disabled_at", "log_ins"]),
            ("UPDATE", &["disabled_at", "log_ins"]),
        ],
    ),
    (
        "posduif_engine.device_secrets",
        &[
            ("SELECT", &[]),
            ("INSERT", &["device_id", "token_hash"]),
            ("UPDATE", &["token_hash", "created_at"]),
        ],
    ),
    (
        "posduif_engine.upload_receipts",
        &[
            ("SELECT", &[]),
            ("INSERT", &["device_id", "upload_id", "body_hash"]),
            ("UPDATE", &["answer", "lsn", "created_at"]),
            ("DELETE", &[]),
        ],
    ),
    (
        "posduif_engine.row_versions",
        &[
            ("SELECT", &[]),
            ("INSERT", &["table_name", "key", "version", "device_id", "deleted", "owner"]),
            ("UPDATE", &["version", "device_id", "deleted", "owner", "written_at"]),
            ("DELETE", &[]),
        ],
    ),
    // What `posduif status` looks at, as this role.
    ("posduif_engine.heartbeat", &[("SELECT", &[])]),
    ("posduif_engine.sync_epoch", &[("SELECT", &[])]),
    ("posduif_engine.epoch_history", &[("SELECT", &[])]),
    ("posduif_engine.tenancy", &[("SELECT", &[])]),
];

const INGESTER: Rights = &[
    ("posduif_engine.heartbeat", &[("SELECT", &[]), ("INSERT", &["nonce"]), ("DELETE", &[])]),
    (
        "posduif_engine.sync_epoch",
        &[
            ("SELECT", &[]),
            ("UPDATE", &["epoch", "token", "reason", "opened_at", "relations", "captured_from"]),
        ],
    ),
    (
        "posduif_engine.epoch_history",
        &[("SELECT", &[]), ("INSERT", &["epoch", "token", "reason", "detail"]), ("DELETE", &[])],
    ),
    // Only an operator pauses, resumes and drops.
    ("posduif_engine.tenancy", &[("SELECT", &[])]),
    ("posduif_engine.captured", &[("SELECT", &[]), ("DELETE", &[])]),
    ("posduif_engine.capture", &[("SELECT", &[]), ("UPDATE", &["noted_by", "enabled"])]),
];

/// Drawn from, and moved past what Redis has seen.
const FENCING: &str = "posduif_engine.fencing_token";

/// What the part needs, whatever is declared.
pub fn own_rights(part: Part) -> Vec<Right> {
    let (tables, sequences): (Rights, &[&str]) = match part {
        Part::Api => (API, &[]),
        Part::Ingester => (INGESTER, &[FENCING]),
    };
    let mut rights = Vec::new();
    let mut add = |object: Object, privilege: &str, column: Option<&str>| {
        let (privilege, column) = (privilege.to_owned(), column.map(str::to_owned));
        rights.push(Right { object, privilege, column });
    };
    add(Object::Schema(ENGINE_SCHEMA.to_owned()), "USAGE", None);
    for (table, privileges) in tables {
        // Every name in the lists is one: a test reads them all.
        let Ok(table) = table.parse::<TableName>() else { continue };
        add(Object::Schema(table.schema().to_owned()), "USAGE", None);
        for (privilege, columns) in *privileges {
            match columns.is_empty() {
                true => add(Object::Table(table.clone()), privilege, None),
                false => {
                    columns
                        .iter()
                        .for_each(|column| add(Object::Table(table.clone()), privilege, Some(column)));
                }
            }
        }
    }
    for sequence in sequences.iter().filter_map(|name| name.parse::<TableName>().ok()) {
        add(Object::Sequence(sequence.clone()), "USAGE", None);
        add(Object::Sequence(sequence), "UPDATE", None);
    }
    rights
}

pub(super) fn is_messages(table: &TableName) -> bool {
    table.schema() == "public" && table.name() == "messages"
}

pub(super) fn is_users(table: &TableName) -> bool {
    table.schema() == "public" && table.name() == "users"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_the_lists_can_be_read() {
        for (table, _) in API.iter().chain(INGESTER) {
            assert!(table.parse::<TableName>().is_ok(), "{table}");
        }
        assert!(FENCING.parse::<TableName>().is_ok());
    }
}
