//! A tenant in, whether anybody waits for its changes out.

use posduif_model::TenantId;

use crate::{connect::Connection, error::LogError, key::Keys};

/// Whether somebody holds a live connection, or a snapshot is under way.
pub async fn is_wanted(connection: &mut Connection, tenant: &TenantId) -> Result<bool, LogError> {
    let keys = Keys::new(tenant);
    let (now, _): (u64, u64) = redis::cmd("TIME").query_async(connection).await?;
    let mut pipeline = redis::pipe();
    for key in [keys.presence(), keys.leases()] {
        pipeline.cmd("ZRANGE").arg((key, format!("({now}"), "+inf", "BYSCORE", "LIMIT", 0, 1));
    }
    let (present, leased): (Vec<String>, Vec<String>) = pipeline.query_async(connection).await?;
    Ok(!present.is_empty() || !leased.is_empty())
}
