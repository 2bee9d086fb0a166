//! Who a row, a stream or a request belongs to: tenant, device, user.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text cannot be an identifier of this kind.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidId {
    #[error("a tenant id has 1 to 63 characters from A-Z a-z 0-9 _ . -")]
    Tenant,
    #[error("a device id has 1 to 128 characters from A-Z a-z 0-9 _ . : -")]
    Device,
    #[error("a user id is a UUID")]
    User,
}

/// The name of a tenant, by default the name of its database.
///
/// Its alphabet leaves out braces and colons, which separate the parts of a Redis key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(String);

/// The name that a device gave itself at enrolment, unique within its tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

/// The primary key of a row in `users`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(Uuid);

fn within(text: &str, longest: usize, extra: &[u8]) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b) || extra.contains(&b))
}

impl TenantId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DeviceId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl UserId {
    pub const fn new(id: Uuid) -> Self {
        UserId(id)
    }

    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl FromStr for TenantId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if within(text, 63, b"") { Ok(TenantId(text.to_owned())) } else { Err(InvalidId::Tenant) }
    }
}

impl FromStr for DeviceId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if within(text, 128, b":") { Ok(DeviceId(text.to_owned())) } else { Err(InvalidId::Device) }
    }
}

impl FromStr for UserId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Uuid::try_parse(text).map(UserId).map_err(|_| InvalidId::User)
    }
}

impl TryFrom<String> for TenantId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl TryFrom<String> for DeviceId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<TenantId> for String {
    fn from(id: TenantId) -> String {
        id.0
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> String {
        id.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_break_out_of_a_redis_key_are_refused() {
        for text in ["", "a b", "a}b", "{a", "a:b", "a*", "ä", "a\nb", &"x".repeat(64)] {
            assert_eq!(text.parse::<TenantId>(), Err(InvalidId::Tenant), "{text:?}");
        }
        assert!("tenant_1".parse::<TenantId>().is_ok());
        for text in ["", "a}b", "a b", "a\0", &"x".repeat(129)] {
            assert_eq!(text.parse::<DeviceId>(), Err(InvalidId::Device), "{text:?}");
        }
        assert!("A1:b2-c3".parse::<DeviceId>().is_ok());
    }
}
