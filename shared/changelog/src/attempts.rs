//! An attempt to get in in, whether one more is allowed out; counted in Redis, for all replicas together.
//!
//! A counter forgets at a steady rate (the generic cell rate algorithm of ATM): after a pause as many attempts are allowed as in a minute,
//! then one each time that one is forgotten. It expires when all are.

use std::time::Duration;

use posduif_model::TenantId;

use crate::{connect::RedisPool, error::LogError, key::Keys, script};

/// How long it is remembered that somebody got in from an address.
const FAMILIAR: Duration = Duration::from_secs(30 * 86_400);

/// The counters of all tenants.
#[derive(Clone, Debug)]
pub struct Attempts {
    pool: RedisPool,
}

/// The name of one counter. What it counts for is given as a hash, so that no name of a person is kept or shown by Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter(String);

impl Counter {
    pub fn of_tenant(tenant: &TenantId, hash: &str) -> Self {
        Counter(Keys::new(tenant).attempts(hash))
    }

    /// Of what belongs to no tenant, such as an address.
    pub fn of_all(hash: &str) -> Self {
        Counter(Keys::attempts_of_all(hash))
    }
}

/// What a counter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// So many more are allowed at once.
    Allowed { remaining: u32 },
    /// None before this time has passed.
    Refused { wait: Duration },
}

impl Attempts {
    pub fn new(pool: RedisPool) -> Self {
        Attempts { pool }
    }

    /// Counts an attempt, if one more is allowed.
    pub async fn take(&self, counter: &Counter, per_minute: u32) -> Result<Tally, LogError> {
        self.run("take", counter, per_minute).await
    }

    /// Whether one more is allowed; counts nothing.
    pub async fn look(&self, counter: &Counter, per_minute: u32) -> Result<Tally, LogError> {
        self.run("look", counter, per_minute).await
    }

    /// Counts an attempt that was made.
    pub async fn count(&self, counter: &Counter, per_minute: u32) -> Result<Tally, LogError> {
        self.run("count", counter, per_minute).await
    }

    /// Forgets an attempt that was counted.
    pub async fn give_back(&self, counter: &Counter, per_minute: u32) -> Result<Tally, LogError> {
        self.run("return", counter, per_minute).await
    }

    /// Remembers that somebody got in from an address; `hash` names both.
    pub async fn remember(&self, tenant: &TenantId, hash: &str) -> Result<(), LogError> {
        let mut set = redis::cmd("SET");
        set.arg((Keys::new(tenant).familiar(hash), 1, "EX", FAMILIAR.as_secs()));
        Ok(set.query_async(&mut self.pool.get().await?).await?)
    }

    /// Whether somebody got in from an address lately.
    pub async fn is_familiar(&self, tenant: &TenantId, hash: &str) -> Result<bool, LogError> {
        let mut get = redis::cmd("GET");
        let found: Option<String> =
            get.arg(Keys::new(tenant).familiar(hash)).query_async(&mut self.pool.get().await?).await?;
        Ok(found.is_some())
    }

    async fn run(&self, what: &str, counter: &Counter, per_minute: u32) -> Result<Tally, LogError> {
        let per_minute = per_minute.max(1);
        let (script, step) = (script::attempt(), 60_000.0 / f64::from(per_minute));
        let mut call = script.key(&counter.0);
        call.arg(what).arg(step).arg(per_minute);
        let (is_allowed, remaining, wait): (bool, u32, u64) =
            call.invoke_async(&mut self.pool.get().await?).await?;
        Ok(match is_allowed {
            true => Tally::Allowed { remaining },
            false => Tally::Refused { wait: Duration::from_millis(wait) },
        })
    }
}
