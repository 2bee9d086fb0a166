//! `api.sse`: live connections, how many and how busy.

use std::time::Duration;

use serde::Deserialize;

use super::{duration, error::Problems};

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SseConfig {
    /// Of one replica; further ones are refused, none is evicted.
    pub max_connections: usize,
    /// Of one device at one replica.
    pub max_per_device: usize,
    /// Of one user at one replica, browsers and devices together.
    pub max_per_user: usize,
    /// Events that wait for a slow reader before they become one hint.
    pub buffer: usize,
    #[serde(with = "duration")]
    pub ping_interval: Duration,
    /// How often changes that everyone sees wake a connection at most.
    #[serde(with = "duration")]
    pub shared_interval: Duration,
    /// How long a change stays unnoticed at most where no hint of it arrives.
    #[serde(with = "duration")]
    pub look_interval: Duration,
    /// How often the credentials of open connections are checked.
    #[serde(with = "duration")]
    pub recheck_interval: Duration,
    /// How long after its last connection a user still counts as online.
    #[serde(with = "duration")]
    pub offline_after: Duration,
    /// The largest page that is sent as an event.
    pub max_page_bytes: usize,
    /// Pages that are read for events at the same time.
    pub page_readers: usize,
}

impl Default for SseConfig {
    fn default() -> Self {
        SseConfig {
            max_connections: 10_000,
            max_per_device: 4,
            max_per_user: 32,
            buffer: 64,
            ping_interval: Duration::from_secs(15),
            shared_interval: Duration::from_secs(5),
            look_interval: Duration::from_secs(2),
            recheck_interval: Duration::from_secs(3),
            offline_after: Duration::from_secs(10),
            max_page_bytes: 256 << 10,
            page_readers: 8,
        }
    }
}

impl SseConfig {
    pub(super) fn check(&self, problems: &mut Problems) {
        let seconds = Duration::from_secs;
        problems.range("api.sse.max_connections", self.max_connections, 1..=1_000_000);
        problems.range("api.sse.max_per_device", self.max_per_device, 1..=1_000);
        problems.range("api.sse.max_per_user", self.max_per_user, 1..=10_000);
        problems.range("api.sse.buffer", self.buffer, 1..=10_000);
        let short = || Duration::from_millis(10)..=seconds(60);
        problems.range("api.sse.ping_interval", self.ping_interval, short());
        problems.range("api.sse.shared_interval", self.shared_interval, short());
        problems.range("api.sse.look_interval", self.look_interval, short());
        // A revoked device must not be connected for longer than five seconds.
        problems.range(
            "api.sse.recheck_interval",
            self.recheck_interval,
            Duration::from_millis(10)..=seconds(4),
        );
        problems.range("api.sse.offline_after", self.offline_after, seconds(1)..=seconds(600));
        problems.range("api.sse.max_page_bytes", self.max_page_bytes, 1024..=64 << 20);
        problems.range("api.sse.page_readers", self.page_readers, 1..=512);
    }
}
