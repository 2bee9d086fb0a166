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
    /// Failed log-ins of one address, and with one username; of all replicas together.
    pub login_per_minute: u32,
    /// Unknown enrolment tokens of one address, and tokens made by one web user; of all replicas together.
    pub enrollment_per_minute: u32,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        RateLimitConfig {
            enabled: true,
            requests_per_minute: 600,
            burst: 100,
            login_per_minute: 10,
            enrollment_per_minute: 30,
        }
    }
}

impl RateLimitConfig {
    pub(super) fn check(&self, problems: &mut Problems) {
        problems.range("rate_limit.requests_per_minute", self.requests_per_minute, 1..=1_000_000);
        problems.range("rate_limit.burst", self.burst, 1..=1_000_000);
        problems.range("rate_limit.login_per_minute", self.login_per_minute, 1..=10_000);
        problems.range("rate_limit.enrollment_per_minute", self.enrollment_per_minute, 1..=10_000);
    }
}
