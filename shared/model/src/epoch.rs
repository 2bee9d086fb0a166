//! The generation of a tenant's log: positions of different epochs cannot be compared.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A random id that names one unbroken history of a tenant's log.
///
/// A restore, a fail-over that lost commits, a new slot or new routing rules open another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch(Uuid);

impl Epoch {
    /// A new epoch from 128 bits of the caller's randomness.
    pub fn from_random(bits: u128) -> Self {
        Epoch(uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}

/// The text is not an epoch.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an epoch, expected 32 hexadecimal digits")]
pub struct InvalidEpoch;

impl FromStr for Epoch {
    type Err = InvalidEpoch;

    fn from_str(text: &str) -> Result<Self, InvalidEpoch> {
        if text.len() != 32 {
            return Err(InvalidEpoch);
        }
        Uuid::try_parse(text).map(Epoch).map_err(|_| InvalidEpoch)
    }
}

impl TryFrom<String> for Epoch {
    type Error = InvalidEpoch;

    fn try_from(text: String) -> Result<Self, InvalidEpoch> {
        text.parse()
    }
}

impl From<Epoch> for String {
    fn from(epoch: Epoch) -> String {
        epoch.to_string()
    }
}
