//! How long nobody has changed or wanted anything of a tenant in, whether a slot is worth its price out.
//!
//! Every slot decodes the WAL of the whole server, so a thousand tenants of one server cost a thousand times its WAL.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use posduif_changelog::{connect::Connection, wanted::is_wanted};
use posduif_model::TenantId;
use posduif_runtime::config::RedisConfig;
use tokio::time::sleep;

use crate::{link, vitals::Vitals};

/// Looks at one tenant.
pub struct Warmth {
    pub tenant: TenantId,
    pub redis: RedisConfig,
    pub vitals: Arc<Vitals>,
    /// How long nothing must have happened.
    pub cold_after: Duration,
}

/// Between two looks: how long a device that comes to a cold tenant may wait for it to be warmed.
const LOOK: Duration = Duration::from_secs(1);

impl Warmth {
    /// Returns once nothing has happened for long enough.
    pub async fn cools(&self) {
        let (mut redis, mut wanted) = (None, Instant::now());
        loop {
            sleep(LOOK.min(self.cold_after)).await;
            // Where Redis cannot say, somebody may be there.
            if self.is_wanted(&mut redis).await.unwrap_or(true) {
                wanted = Instant::now();
            }
            let now = Instant::now();
            let quiet = self.vitals.quiet(now).min(now.saturating_duration_since(wanted));
            if quiet >= self.cold_after {
                return;
            }
        }
    }

    /// Returns once something happens.
    pub async fn warms(&self) {
        let (mut redis, begun) = (None, Instant::now());
        loop {
            sleep(LOOK.min(self.cold_after)).await;
            let has_changed = self.vitals.quiet(Instant::now()) < begun.elapsed();
            if has_changed || self.is_wanted(&mut redis).await.unwrap_or(false) {
                return;
            }
        }
    }

    /// `None` where Redis cannot say; its connection is made anew the next time.
    async fn is_wanted(&self, redis: &mut Option<Connection>) -> Option<bool> {
        let mut connection = match redis.take() {
            Some(connection) => connection,
            None => link::open(&self.redis).await.ok()?,
        };
        let wanted = is_wanted(&mut connection, &self.tenant).await.ok()?;
        *redis = Some(connection);
        Some(wanted)
    }
}
