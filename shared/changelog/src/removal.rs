//! A tenant that was dropped in, the memory of all its keys back out.

use posduif_model::TenantId;

use crate::{connect::RedisPool, error::LogError, key::Keys};

/// Keys that one step looks at: Redis serves others between two steps.
const STEP: usize = 1_000;

/// Removes every key of the tenant and returns how many there were: its log, what replicas remember, who is there.
///
/// Cut short, it is called again. Whoever still works for the tenant makes keys anew.
///
/// # Errors
/// `Unavailable` and `Forbidden`; some keys may be gone.
pub async fn remove(pool: &RedisPool, tenant: &TenantId) -> Result<u64, LogError> {
    let pattern = format!("{}*", Keys::new(tenant).all());
    let (mut cursor, mut removed) = (0, 0);
    loop {
        let mut connection = pool.get().await?;
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg((cursor, "MATCH", &pattern, "COUNT", STEP))
            .query_async(&mut connection)
            .await?;
        if !keys.is_empty() {
            removed += redis::cmd("UNLINK").arg(keys).query_async::<u64>(&mut connection).await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(removed);
        }
    }
}
