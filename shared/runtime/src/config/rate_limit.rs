//! `rate_limit`: how much one caller may ask of the API.

use serde::Deserialize;

use super::error::Problems;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitConfig {
    pub enabled: bool,
    /// The rate a caller may keep up.
    pub requests_per_minute: u32,
    /// What a caller that was silent may ask at once.
    pub burst: u32,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        RateLimitConfig { enabled: true, requests_per_minute: 600, burst: 100 }
    }
}

impl RateLimitConfig {
    pub(super) fn check(&self, problems: &mut Problems) {
        problems.range("rate_limit.requests_per_minute", self.requests_per_minute, 1..=1_000_000);
        problems.range("rate_limit.burst", self.burst, 1..=1_000_000);
    }
}
