//! A caller in, a ticket that lets it in once out; kept in Redis, so that any replica can take it.

use std::time::Duration;

use posduif_model::TenantId;

use crate::{connect::RedisPool, error::LogError, key::Keys};

/// The tickets of one tenant.
#[derive(Clone, Debug)]
pub struct Tickets {
    pool: RedisPool,
    keys: Keys,
}

impl Tickets {
    pub fn new(pool: RedisPool, tenant: &TenantId) -> Self {
        Tickets { pool, keys: Keys::new(tenant) }
    }

    /// Keeps whom the ticket with this hash lets in.
    pub async fn put(&self, hash: &str, bearer: &str, lifetime: Duration) -> Result<(), LogError> {
        let milliseconds = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let set = redis::cmd("SET").arg((self.keys.ticket(hash), bearer, "PX", milliseconds)).to_owned();
        Ok(set.query_async(&mut self.pool.get().await?).await?)
    }

    /// Takes the ticket with this hash: of all who ask, one gets its bearer.
    pub async fn take(&self, hash: &str) -> Result<Option<String>, LogError> {
        let mut take = redis::cmd("GETDEL");
        Ok(take.arg(self.keys.ticket(hash)).query_async(&mut self.pool.get().await?).await?)
    }
}
