//! What is cached of a device's credential, so that a sync with nothing new asks PostgreSQL nothing.

use posduif_model::{DeviceId, TenantId, UserId};

use crate::{connect::RedisPool, error::LogError, key::Keys, wake};

/// How long a cached credential is believed without another look at PostgreSQL, in seconds.
const LIFETIME: i64 = 3_600;

/// KEYS: credential. ARGV: lifetime, channel, message. Forgets the credential, begins another generation of it and
/// tells those that hold the device's connections.
///
/// It may run when memory is short: a revocation must not wait for memory.
const FORGET: &str = r"#!lua flags=allow-oom
redis.call('HDEL', KEYS[1], 'user', 'token')
if redis.call('HEXISTS', KEYS[1], 'generation') == 0 then
  local now = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'generation', now[1] .. string.format('%06d', now[2]))
end
redis.call('HINCRBY', KEYS[1], 'generation', 1)
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.pcall('PUBLISH', ARGV[2], ARGV[3])
";

/// KEYS: credential. ARGV: generation or '', user, token hash, lifetime. Stores what was read in that generation.
const PUT: &str = r"#!lua
if (redis.call('HGET', KEYS[1], 'generation') or '') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'user', ARGV[2], 'token', ARGV[3])
  redis.call('EXPIRE', KEYS[1], ARGV[4])
end
";

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
            .arg((self.keys.device_auth(device), "user", "token", "generation"))
            .query_async(&mut self.pool.get().await?)
            .await?;
        Ok(cached(found))
    }

    /// [`DeviceAuthCache::get`] of many devices in one round trip, in their order.
    pub async fn get_all(&self, devices: &[DeviceId]) -> Result<Vec<Cached>, LogError> {
        let mut pipeline = redis::pipe();
        for device in devices {
            pipeline.cmd("HMGET").arg((self.keys.device_auth(device), "user", "token", "generation"));
        }
        let found: Vec<Fields> = pipeline.query_async(&mut self.pool.get().await?).await?;
        Ok(found.into_iter().map(cached).collect())
    }

    /// Remembers a credential that PostgreSQL confirmed, unless it was forgotten since `generation` was read.
    pub async fn put(&self, device: &DeviceId, auth: &DeviceAuth, generation: &str) -> Result<(), LogError> {
        let script = redis::Script::new(PUT);
        let mut call = script.key(self.keys.device_auth(device));
        call.arg(generation).arg(auth.user.to_string()).arg(&auth.token_hash).arg(LIFETIME);
        Ok(call.invoke_async(&mut self.pool.get().await?).await?)
    }

    /// Forgets a credential; called before and after a change of it commits.
    pub async fn forget(&self, device: &DeviceId) -> Result<(), LogError> {
        let script = redis::Script::new(FORGET);
        let mut call = script.key(self.keys.device_auth(device));
        call.arg(LIFETIME).arg(self.keys.wake()).arg(wake::device_message(device));
        Ok(call.invoke_async(&mut self.pool.get().await?).await?)
    }
}

fn cached((user, token, generation): Fields) -> Cached {
    let auth = user.zip(token).and_then(|(user, token_hash)| {
        let user = user.parse().ok()?;
        Some(DeviceAuth { user, token_hash })
    });
    Cached { auth, generation: generation.unwrap_or_default() }
}
