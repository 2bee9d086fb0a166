//! Web users in, their accounts out: from the cache, else from PostgreSQL.

use std::collections::HashMap;

use posduif_accounts::account;
use posduif_changelog::account_auth::{Account, Cached};
use posduif_model::UserId;

use crate::{credential::jwt::Subject, store::StoreError, tenant::Tenant};

/// Whether a log-in was ended since it was given out, by its user's end or by a new password.
pub fn is_good(log_in: &Subject, account: &Account) -> bool {
    !account.is_disabled && account.log_ins == log_in.log_ins
}

/// The account of each of these who is a web user of the tenant.
pub async fn of(tenant: &Tenant, users: &[UserId]) -> Result<HashMap<UserId, Account>, StoreError> {
    let cached = match tenant.caches.accounts.get_all(users).await {
        Ok(cached) => Some(cached),
        // Without Redis a web user can still read and write: PostgreSQL knows what the cache knows.
        Err(error) => {
            tracing::warn!(tenant = %tenant.id, %error, "accounts are read from PostgreSQL, the cache is away");
            None
        }
    };
    let is_cached = cached.is_some();
    let cached = cached.unwrap_or_else(|| vec![Cached::default(); users.len()]);
    let (mut known, mut unknown) = (HashMap::new(), HashMap::new());
    for (user, Cached { account, generation }) in users.iter().zip(cached) {
        match account {
            Some(account) => drop(known.insert(*user, account)),
            None => drop(unknown.insert(*user, generation)),
        }
    }
    if unknown.is_empty() {
        return Ok(known);
    }
    let asked: Vec<UserId> = unknown.keys().copied().collect();
    let found = tenant.database.run(async |client| {
        let client: &tokio_postgres::Client = client;
        Ok::<_, StoreError>(account::of_web_users(client, &asked).await?)
    });
    for (user, account) in found.await? {
        if let Some(generation) = unknown.get(&user).filter(|_| is_cached)
            && let Err(error) = tenant.caches.accounts.put(user, account, generation).await
        {
            tracing::warn!(tenant = %tenant.id, %error, "an account was not cached");
        }
        known.insert(user, account);
    }
    Ok(known)
}
