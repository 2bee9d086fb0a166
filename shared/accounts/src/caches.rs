//! What replicas remember of credentials, to be forgotten around every change of one.

use posduif_changelog::{
    LogError, RedisPool, account_auth::AccountCache, device_auth::DeviceAuthCache, remembered::Until,
};
use posduif_model::{DeviceId, TenantId, UserId};

use crate::error::AccountError;

/// One tenant's caches of credentials.
#[derive(Clone, Debug)]
pub struct Caches {
    pub accounts: AccountCache,
    pub devices: DeviceAuthCache,
}

impl Caches {
    pub fn new(redis: &RedisPool, tenant: &TenantId) -> Self {
        Caches {
            accounts: AccountCache::new(redis.clone(), tenant),
            devices: DeviceAuthCache::new(redis.clone(), tenant),
        }
    }

    /// Runs a commit that changes a user's account or these devices, and forgets both around it.
    ///
    /// Before it, so that a failure of Redis refuses the change instead of delaying it. From then on nothing is remembered for
    /// longer than a commit may take, so what was committed holds even where Redis cannot be told that it was. Open
    /// connections of theirs are looked at anew.
    pub(crate) async fn around(
        &self,
        user: Option<UserId>,
        devices: &[DeviceId],
        commit: impl Future<Output = Result<(), tokio_postgres::Error>>,
    ) -> Result<(), AccountError> {
        self.forget(user, devices, Until::Committed).await?;
        let outcome = commit.await;
        // Whatever the answer, the commit may have happened. To be told only makes that known sooner.
        let _ = self.forget(user, devices, Until::Now).await;
        Ok(outcome?)
    }

    async fn forget(&self, user: Option<UserId>, devices: &[DeviceId], until: Until) -> Result<(), LogError> {
        if let Some(user) = user {
            self.accounts.forget(user, until).await?;
        }
        for device in devices {
            self.devices.forget(device, until).await?;
        }
        Ok(())
    }
}
