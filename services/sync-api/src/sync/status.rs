//! A device in, how its sync stands out.

use chrono::{DateTime, Utc};
use posduif_model::{DeviceId, Lsn, Source, UserId};
use serde::Serialize;
use utoipa::ToSchema;

use super::SyncError;
use crate::{app::App, clock, store::sync_metadata, tenant::Tenant};

/// Counting what waits for a device ends here.
const MOST_WAITING: usize = 10_000;

/// How the sync of a device stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SyncStatus, example = json!({
    "device_id": "phone-1", "last_sync_timestamp": "2026-11-23T10:44:02.120Z", "last_synced_lsn": "0/1C341B8",
    "pending_outgoing_count": 0, "pending_incoming_count": 3, "sync_status": "syncing", "mode": "wal",
}))]
pub struct Status {
    #[schema(value_type = String)]
    device_id: DeviceId,
    #[schema(value_type = Option<DateTime<Utc>>)]
    last_sync_timestamp: Option<String>,
    /// What the device confirmed last; none before its first snapshot.
    #[schema(value_type = Option<String>, pattern = "^[0-9A-F]{1,8}/[0-9A-F]{1,8}$")]
    last_synced_lsn: Option<Lsn>,
    /// What the device said with its last upload.
    pending_outgoing_count: i32,
    /// Changes of its rows that it has not confirmed, counted up to 10,000; the log's, as a snapshot has no number.
    pending_incoming_count: u64,
    /// `idle`; `syncing`: something waits, or a snapshot is due; `error`: the tenant's log cannot be read.
    #[schema(pattern = "^(idle|syncing|error)$")]
    sync_status: &'static str,
    #[schema(pattern = "^(wal|polling)$")]
    mode: &'static str,
}

/// # Errors
/// Where Redis or PostgreSQL cannot be asked.
pub async fn of(app: &App, tenant: &Tenant, device: &DeviceId, user: UserId) -> Result<Status, SyncError> {
    let (state, confirmed) = tenant.log.look(device).await?;
    let stored = tenant.database.run(async |client| sync_metadata::find(client, device).await).await?;
    let confirmed = confirmed.filter(|confirmed| confirmed.user == user);
    let mut pending_incoming_count = 0;
    let sync_status = match (&state, confirmed) {
        (None, _) => "error",
        (Some(state), _) if state.broken.is_some() || state.rules != *app.rules.hash() => "error",
        (Some(state), Some(at)) if at.epoch == state.epoch && at.commit >= state.floor => {
            let (upto, reader) = (state.watermark.commit, [(user, at.commit)]);
            let counts = tenant.log.pending(&state.epoch, &reader, upto, MOST_WAITING).await?;
            pending_incoming_count = counts.first().copied().unwrap_or_default();
            if pending_incoming_count == 0 { "idle" } else { "syncing" }
        }
        // It needs a snapshot, or is taking one.
        (Some(_), _) => "syncing",
    };
    let told = confirmed.and_then(|confirmed| DateTime::<Utc>::from_timestamp_millis(confirmed.at));
    Ok(Status {
        device_id: device.clone(),
        last_sync_timestamp: stored.last_sync.max(told).map(clock::told),
        last_synced_lsn: confirmed.map(|confirmed| confirmed.commit).or(stored.last_synced),
        pending_outgoing_count: stored.pending_outgoing,
        pending_incoming_count,
        sync_status,
        mode: state.map_or(Source::Wal, |state| state.supply.source).as_str(),
    })
}
