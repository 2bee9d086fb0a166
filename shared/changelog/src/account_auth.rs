//! What is cached of a user's account, so that a request of a web user costs no query for its sake.

use posduif_model::{TenantId, UserId};

use crate::{
    connect::RedisPool,
    error::LogError,
    key::Keys,
    remembered::{self, GENERATION, Until},
    wake,
};

/// What decides whether a log-in is still good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Log-ins that name an earlier number have ended.
    pub log_ins: i32,
    /// Operates the tenant: disables users, sees and revokes all devices.
    pub is_admin: bool,
    pub is_disabled: bool,
}

impl Account {
    fn to_text(self) -> String {
        format!("{} {} {}", self.log_ins, u8::from(self.is_admin), u8::from(self.is_disabled))
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let log_ins = parts.next()?.parse().ok()?;
        let mut flag = || match parts.next()? {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        };
        Some(Account { log_ins, is_admin: flag()?, is_disabled: flag()? })
    }
}

/// What the cache knows of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cached {
    /// Absent when PostgreSQL must be asked.
    pub account: Option<Account>,
    /// Given back to [`AccountCache::put`]: what PostgreSQL said before a change must not be stored after it.
    pub generation: String,
}

type Fields = (Option<String>, Option<String>);

/// The cache of one tenant's accounts.
#[derive(Clone, Debug)]
pub struct AccountCache {
    pool: RedisPool,
    keys: Keys,
}

impl AccountCache {
    pub fn new(pool: RedisPool, tenant: &TenantId) -> Self {
        AccountCache { pool, keys: Keys::new(tenant) }
    }

    /// Looks a user up; to be called before PostgreSQL is asked.
    pub async fn get(&self, user: UserId) -> Result<Cached, LogError> {
        let mut get = redis::cmd("HMGET");
        get.arg((self.keys.account(user), FIELD, GENERATION));
        let found: Fields = get.query_async(&mut self.pool.get().await?).await?;
        Ok(cached(&found))
    }

    /// [`AccountCache::get`] of many users in one round trip, in their order.
    pub async fn get_all(&self, users: &[UserId]) -> Result<Vec<Cached>, LogError> {
        let mut pipeline = redis::pipe();
        for user in users {
            pipeline.cmd("HMGET").arg((self.keys.account(*user), FIELD, GENERATION));
        }
        let found: Vec<Fields> = pipeline.query_async(&mut self.pool.get().await?).await?;
        Ok(found.iter().map(cached).collect())
    }

    /// Remembers what PostgreSQL said, unless it was forgotten since `generation` was read.
    pub async fn put(&self, user: UserId, account: Account, generation: &str) -> Result<(), LogError> {
        let fields = [(FIELD, &*account.to_text())];
        remembered::put(&self.pool, self.keys.account(user), generation, &fields).await
    }

    /// Forgets an account; called before and after a change of it commits.
    pub async fn forget(&self, user: UserId, until: Until) -> Result<(), LogError> {
        let (key, channel) = (self.keys.account(user), self.keys.wake());
        remembered::forget(&self.pool, key, until, channel, wake::user_message(user)).await
    }
}

const FIELD: &str = "account";

fn cached((account, generation): &Fields) -> Cached {
    let account = account.as_deref().and_then(Account::from_text);
    Cached { account, generation: generation.clone().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_as_it_was_written_and_nothing_else_is_one() {
        for account in [
            Account::default(),
            Account { log_ins: 7, is_admin: true, is_disabled: false },
            Account { log_ins: i32::MAX, is_admin: false, is_disabled: true },
        ] {
            assert_eq!(Account::from_text(&account.to_text()), Some(account));
        }
        for text in ["", "1", "1 1", "1 2 0", "x 0 0"] {
            assert_eq!(Account::from_text(text), None, "{text}");
        }
    }
}
