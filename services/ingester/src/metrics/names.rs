//! The names of all metrics; docs/METRICS.md says what each means and what is normal.

pub const BUILD: &str = "posduif_ingester_build_info";
pub const COMMITS: &str = "posduif_ingester_commits_total";
pub const CHANGES: &str = "posduif_ingester_changes_total";
pub const LEFT_OUT: &str = "posduif_ingester_transactions_left_out_total";
pub const CHANGES_LEFT_OUT: &str = "posduif_ingester_changes_left_out_total";
pub const STORED_BYTES: &str = "posduif_ingester_stored_bytes_total";
pub const CHUNK_BYTES: &str = "posduif_ingester_chunk_bytes";
pub const CHUNK_ENTRIES: &str = "posduif_ingester_chunk_entries";
pub const APPEND: &str = "posduif_ingester_append_duration_seconds";
pub const PUBLISH: &str = "posduif_ingester_publish_delay_seconds";
pub const EPOCHS: &str = "posduif_ingester_epochs_opened_total";
pub const SLOTS_CREATED: &str = "posduif_ingester_slots_created_total";
pub const TAKE_OVERS: &str = "posduif_ingester_take_overs_total";
pub const FAILURES: &str = "posduif_ingester_session_failures_total";
pub const RETRIES: &str = "posduif_ingester_log_retries_total";
pub const TRIMMED: &str = "posduif_ingester_trimmed_entries_total";
pub const COMPACTED: &str = "posduif_ingester_compacted_entries_total";
pub const ROWS_LEFT_OUT: &str = "posduif_ingester_rows_left_out_total";

pub const EVICTIONS: &str = "posduif_ingester_walsenders_ended_total";

pub const MEMBERS: &str = "posduif_ingester_members";
pub const KNOWN: &str = "posduif_ingester_known_tenants";
pub const HELD: &str = "posduif_ingester_held_tenants";
pub const UNHELD: &str = "posduif_ingester_unheld_tenants";

pub const CONFIGURATION_REFUSED: &str = "posduif_ingester_configuration_refused";
pub const ORPHAN_SLOT: &str = "posduif_ingester_orphan_slot_retained_bytes";

// Only where a webhook is configured.
pub const WEBHOOK_DELIVERED: &str = "posduif_ingester_webhook_delivered_commits_total";
pub const WEBHOOK_FAILED: &str = "posduif_ingester_webhook_failed_calls_total";
pub const WEBHOOK_SKIPPED: &str = "posduif_ingester_webhook_skipped_total";

// Read at the scrape.
pub const FOLLOWING: &str = "posduif_ingester_following";
pub const PAUSED: &str = "posduif_ingester_paused";
pub const HEARTBEAT_LAG: &str = "posduif_ingester_heartbeat_lag_seconds";
pub const WATERMARK_AGE: &str = "posduif_ingester_watermark_age_seconds";
pub const WATERMARK: &str = "posduif_ingester_watermark_lsn_bytes";
pub const CONFIRMED: &str = "posduif_ingester_confirmed_lsn_bytes";
pub const LAG_BYTES: &str = "posduif_ingester_lag_bytes";
pub const UNCONFIRMED_BYTES: &str = "posduif_ingester_unconfirmed_bytes";
pub const WAITING: &str = "posduif_ingester_waiting_transactions";
pub const OLDEST_WAITING: &str = "posduif_ingester_oldest_waiting_seconds";
pub const UNREADY: &str = "posduif_ingester_epoch_unready";
pub const EPOCH_OPENED: &str = "posduif_ingester_epoch_opened_timestamp_seconds";
pub const SLOT_RETAINED: &str = "posduif_ingester_slot_retained_bytes";
pub const SLOT_SAFE: &str = "posduif_ingester_slot_safe_wal_bytes";
pub const SLOT_LIMIT: &str = "posduif_ingester_slot_wal_limit_bytes";
pub const SLOT_STATUS: &str = "posduif_ingester_slot_wal_status";
pub const WEBHOOK_LAG: &str = "posduif_ingester_webhook_lag_seconds";

/// All of them, for tests that compare alerts and documents with the code.
pub const ALL: [&str; 45] = [
    BUILD,
    COMMITS,
    CHANGES,
    LEFT_OUT,
    CHANGES_LEFT_OUT,
    STORED_BYTES,
    CHUNK_BYTES,
    CHUNK_ENTRIES,
    APPEND,
    PUBLISH,
    EPOCHS,
    SLOTS_CREATED,
    TAKE_OVERS,
    FAILURES,
    RETRIES,
    TRIMMED,
    COMPACTED,
    ROWS_LEFT_OUT,
    EVICTIONS,
    MEMBERS,
    KNOWN,
    HELD,
    UNHELD,
    CONFIGURATION_REFUSED,
    ORPHAN_SLOT,
    WEBHOOK_DELIVERED,
    WEBHOOK_FAILED,
    WEBHOOK_SKIPPED,
    FOLLOWING,
    PAUSED,
    HEARTBEAT_LAG,
    WATERMARK_AGE,
    WATERMARK,
    CONFIRMED,
    LAG_BYTES,
    UNCONFIRMED_BYTES,
    WAITING,
    OLDEST_WAITING,
    UNREADY,
    EPOCH_OPENED,
    SLOT_RETAINED,
    SLOT_SAFE,
    SLOT_LIMIT,
    SLOT_STATUS,
    WEBHOOK_LAG,
];
