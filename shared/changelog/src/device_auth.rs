//! What is cached of a device's credential, so that a sync with nothing new asks PostgreSQL nothing.

use posduif_model::{DeviceId, TenantId, UserId};
use redis::AsyncCommands;

use crate::{connect::RedisPool, error::LogError, key::Keys};

/// How long a cached credential is believed without another look at PostgreSQL, in seconds.
const LIFETIME: i64 = 3_600;

/// The credential of a device as the API compares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceAuth {
    pub user: UserId,
    /// SHA-256 of the device token, in hexadecimal.
    pub token_hash: String,
}

/// The cache of one tenant's device credentials.
#[derive(Clone, Debug)]
pub struct DeviceAuthCache {
    pool: RedisPool,
    keys: Keys,
}

impl DeviceAuthCache {
    pub fn new(pool: RedisPool, tenant: &TenantId) -> Self {
        DeviceAuthCache { pool, keys: Keys::new(tenant) }
    }

    /// The cached credential, `None` when PostgreSQL must be asked.
    pub async fn get(&self, device: &DeviceId) -> Result<Option<DeviceAuth>, LogError> {
        let fields: (Option<String>, Option<String>) = redis::cmd("HMGET")
            .arg(self.keys.device_auth(device))
            .arg("user")
            .arg("token")
            .query_async(&mut self.pool.get().await?)
            .await?;
        Ok(match fields {
            (Some(user), Some(token_hash)) => user.parse().ok().map(|user| DeviceAuth { user, token_hash }),
            _ => None,
        })
    }

    /// Remembers a credential that PostgreSQL confirmed.
    pub async fn put(&self, device: &DeviceId, auth: &DeviceAuth) -> Result<(), LogError> {
        let key = self.keys.device_auth(device);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.hset(&key, "user", auth.user.to_string()).hset(&key, "token", &auth.token_hash);
        pipeline.expire(&key, LIFETIME);
        Ok(pipeline.query_async(&mut self.pool.get().await?).await?)
    }

    /// Forgets a credential; called before and after a change of it commits.
    pub async fn forget(&self, device: &DeviceId) -> Result<(), LogError> {
        Ok(self.pool.get().await?.del(self.keys.device_auth(device)).await?)
    }
}
