//! What is cached of a device's credential, so that a sync with nothing new asks PostgreSQL nothing.

use posduif_model::{DeviceId, TenantId, UserId};

use crate::{
    connect::RedisPool,
    error::LogError,
    key::Keys,
    remembered::{self, GENERATION, Until},
    wake,
};

/// The credential of a device as the API compares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceAuth {
    pub user: UserId,
    /// SHA-256 of the device token, in hexadecimal.
    pub token_hash: String,
}

/// What the cache knows of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cached {
    /// Absent when PostgreSQL must be asked.
    pub auth: Option<DeviceAuth>,
    /// Given back to [`DeviceAuthCache::put`]: what PostgreSQL said before a change must not be stored after it.
    pub generation: String,
}

/// User, token and generation as they are stored.
type Fields = (Option<String>, Option<String>, Option<String>);

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

    /// Looks a device up; to be called before PostgreSQL is asked.
    pub async fn get(&self, device: &DeviceId) -> Result<Cached, LogError> {
        let found: Fields = redis::cmd("HMGET")
            .arg((self.keys.device_auth(device), "user", "token", GENERATION))
            .query_async(&mut self.pool.get().await?)
            .await?;
        Ok(cached(found))
    }

    /// [`DeviceAuthCache::get`] of many devices in one round trip, in their order.
    pub async fn get_all(&self, devices: &[DeviceId]) -> Result<Vec<Cached>, LogError> {
        let mut pipeline = redis::pipe();
        for device in devices {
            pipeline.cmd("HMGET").arg((self.keys.device_auth(device), "user", "token", GENERATION));
        }
        let found: Vec<Fields> = pipeline.query_async(&mut self.pool.get().await?).await?;
        Ok(found.into_iter().map(cached).collect())
    }

    /// Remembers a credential that PostgreSQL confirmed, unless it was forgotten since `generation` was read.
    pub async fn put(&self, device: &DeviceId, auth: &DeviceAuth, generation: &str) -> Result<(), LogError> {
        let fields = [("user", &*auth.user.to_string()), ("token", &auth.token_hash)];
        remembered::put(&self.pool, self.keys.device_auth(device), generation, &fields).await
    }

    /// Forgets a credential; called before and after a change of it commits.
    pub async fn forget(&self, device: &DeviceId, until: Until) -> Result<(), LogError> {
        let (key, channel) = (self.keys.device_auth(device), self.keys.wake());
        remembered::forget(&self.pool, key, until, channel, wake::device_message(device)).await
    }
}

fn cached((user, token, generation): Fields) -> Cached {
    let auth = user.zip(token).and_then(|(user, token_hash)| {
        let user = user.parse().ok()?;
        Some(DeviceAuth { user, token_hash })
    });
    Cached { auth, generation: generation.unwrap_or_default() }
}
