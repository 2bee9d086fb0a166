//! A device that keeps no cursor in, its next page out: the server keeps the cursor for it.
//!
//! A weaker promise than a cursor of the device's own. It moves on when the connection has taken a whole answer, and what
//! is on its way then may still be lost.

use std::sync::Arc;

use posduif_model::DeviceId;

use super::{
    SyncError,
    incoming::{self, Answer, Reader},
    stage::Since,
};
use crate::{app::App, tenant::Tenant};

/// Reads on from the cursor that is kept; a snapshot where there is none, or none that can be continued.
pub async fn next_page(app: &App, reader: &Reader<'_>) -> Result<Answer, SyncError> {
    let held = reader.tenant.log.held_cursor(reader.device).await?;
    let cursor =
        held.and_then(|text| app.cursors.open(&text, &reader.tenant.id, reader.device, reader.user).ok());
    let since = cursor.map_or(Since::Start, Since::Cursor);
    match incoming::next_page(app, reader, &since).await {
        // It never asked for `start` and would not know to.
        Err(SyncError::Expired) if since != Since::Start => {
            incoming::next_page(app, reader, &Since::Start).await
        }
        answered => answered,
    }
}

/// Keeps the cursor of an answer that was written.
pub async fn hold(tenant: Arc<Tenant>, device: DeviceId, cursor: String) {
    if let Err(error) = tenant.log.hold_cursor(&device, &cursor).await {
        tracing::warn!(tenant = %tenant.id, %error, "a device without a cursor of its own will get a page again");
    }
}
