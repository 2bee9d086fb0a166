//! All buckets of one replica, and the counter of those who found theirs empty.

use std::{convert::Infallible, time::Duration};

use ipnet::IpNet;
use posduif_model::{DeviceId, TenantId, UserId};
use posduif_runtime::config::RateLimitConfig;
use prometheus::IntCounterVec;
use tokio::time::interval;

use super::{
    address::Address,
    buckets::{Buckets, Overflow},
    level::{Exhausted, Level},
    tries::Tries,
};
use crate::credential::jwt::Subject;

/// What all devices of one user may ask together, as a multiple of what one may: a phone, a tablet and two more, each at full
/// speed. Who enrols a hundred devices gets no more.
const DEVICES_PER_USER: u32 = 4;
/// Addresses that are remembered; some 40 bytes each.
const MOST_STRANGERS: usize = 1 << 16;
const MOST_PROVEN: usize = 1 << 18;
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// Whose limit was reached; as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Device,
    User,
    Address,
    Login,
    Enrollment,
}

impl By {
    const fn label(self) -> &'static str {
        match self {
            By::Device => "device",
            By::User => "user",
            By::Address => "address",
            By::Login => "login",
            By::Enrollment => "enrollment",
        }
    }
}

/// How much each caller has asked of this replica.
#[derive(Debug)]
pub struct Rates {
    pub is_enabled: bool,
    pub trusted_proxies: Vec<IpNet>,
    devices: Buckets,
    /// Of users with devices, all of them together.
    device_users: Buckets,
    web_users: Buckets,
    strangers: Buckets,
    /// Of log-ins and enrolments.
    pub tries: Tries,
    limited: IntCounterVec,
}

impl Rates {
    pub fn new(
        config: &RateLimitConfig,
        trusted_proxies: Vec<IpNet>,
        tries: Tries,
        limited: IntCounterVec,
    ) -> Self {
        let (rate, burst) = (config.requests_per_minute, config.burst);
        let proven = |factor: u32| {
            let (rate, burst) = (rate.saturating_mul(factor), burst.saturating_mul(factor));
            Buckets::new(rate, burst, MOST_PROVEN, Overflow::Admitted)
        };
        Rates {
            is_enabled: config.enabled,
            trusted_proxies,
            devices: proven(1),
            device_users: proven(DEVICES_PER_USER),
            web_users: proven(1),
            strangers: Buckets::new(rate, burst, MOST_STRANGERS, Overflow::Shared),
            tries,
            limited,
        }
    }

    pub fn device(&self, tenant: &TenantId, device: &DeviceId, user: UserId) -> Result<Level, Exhausted> {
        let level = self.counted(By::Device, self.devices.take((tenant, device)))?;
        let all = self.counted(By::User, self.device_users.take((tenant, user)))?;
        Ok(level.tighter(all))
    }

    /// Log-ins that were ended use up nothing of those that go on.
    pub fn web_user(&self, log_in: &Subject) -> Result<Level, Exhausted> {
        let Subject { tenant, user, log_ins } = log_in;
        self.counted(By::User, self.web_users.take((tenant, user, log_ins)))
    }

    pub fn stranger(&self, address: Address) -> Result<Level, Exhausted> {
        self.counted(By::Address, self.strangers.take(address))
    }

    /// Counts a refusal, whoever decided it.
    pub fn counted<T>(&self, by: By, outcome: Result<T, Exhausted>) -> Result<T, Exhausted> {
        if outcome.is_err() {
            self.limited.with_label_values(&[by.label()]).inc();
        }
        outcome
    }

    /// Keeps forgetting who has not called for a while.
    pub async fn sweep(&self) -> Infallible {
        let mut ticks = interval(SWEEP_INTERVAL);
        loop {
            ticks.tick().await;
            for buckets in [&self.devices, &self.device_users, &self.web_users, &self.strangers] {
                buckets.sweep();
            }
            self.tries.sweep();
        }
    }
}

#[cfg(test)]
mod tests {
    use posduif_changelog::{Timeouts, attempts::Attempts};
    use prometheus::Opts;
    use uuid::Uuid;

    use super::*;
    use crate::credential::pseudonym::Pseudonyms;

    #[test]
    fn many_devices_of_one_user_get_no_more_than_four() {
        let limited = IntCounterVec::new(Opts::new("limited", "x"), &["by"]).unwrap();
        let config = RateLimitConfig { requests_per_minute: 1, burst: 5, ..RateLimitConfig::default() };
        let redis = posduif_changelog::pool("redis://127.0.0.1:1", 1, Timeouts::default()).unwrap();
        let tries = Tries::new(Attempts::new(redis), Pseudonyms::derive(b""), &config);
        let rates = Rates::new(&config, Vec::new(), tries, limited.clone());
        let (tenant, user) = ("t".parse().unwrap(), UserId::new(Uuid::from_u128(1)));
        let mut passed = 0;
        for device in 0..20 {
            let device: DeviceId = format!("d{device}").parse().unwrap();
            passed += (0..10).filter(|_| rates.device(&tenant, &device, user).is_ok()).count();
        }
        assert_eq!(passed, 20);
        assert_eq!(limited.with_label_values(&["device"]).get(), 4 * 5 + 16 * 5);
        assert_eq!(limited.with_label_values(&["user"]).get(), 16 * 5);
        // Nobody else's.
        let other = UserId::new(Uuid::from_u128(2));
        assert!(rates.device(&tenant, &"e".parse().unwrap(), other).is_ok());
        assert!(rates.device(&"t2".parse().unwrap(), &"d0".parse().unwrap(), user).is_ok());
    }
}
