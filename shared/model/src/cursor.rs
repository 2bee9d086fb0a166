//! The position of a device as it travels: opaque to the device, authenticated by the server.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{
    epoch::Epoch,
    id::{DeviceId, TenantId},
    lsn::Lsn,
    rule::RulesHash,
};

/// Where a device goes on reading, in which epoch and under which rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    #[serde(rename = "e")]
    pub epoch: Epoch,
    #[serde(rename = "r")]
    pub rules: RulesHash,
    #[serde(rename = "a")]
    pub at: Resume,
}

/// The stage of a device's sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resume {
    /// Everything up to and including this commit is on the device.
    #[serde(rename = "s")]
    Stream { commit: Lsn },
    /// In the table pages of a snapshot that began when the watermark stood at `from`.
    #[serde(rename = "t")]
    Table {
        from: Lsn,
        /// Which part of the snapshot: an index into the list of (table, bucket) pairs.
        part: usize,
        /// The key of the last row sent, as PostgreSQL's text; absent at the start of a part.
        after: Option<Vec<String>>,
    },
    /// All table pages are out; the log from `from` on is to be replayed over them.
    #[serde(rename = "m")]
    Mark { from: Lsn },
    /// Replaying the log over the snapshot; everything up to and including this commit is out.
    #[serde(rename = "p")]
    Replay {
        commit: Lsn,
        /// The end of the WAL after the last table page: a replay that ends before it is not a state of PostgreSQL.
        until: Lsn,
    },
}

/// The cursor was not made by this installation for this device.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a cursor of this server for this device")]
pub struct InvalidCursor;

const TAG_BYTES: usize = 16;
const LONGEST_TEXT: usize = 16 * 1024;

/// The secret that authenticates cursors, the same on every replica.
#[derive(Clone)]
pub struct CursorKey(Hmac<Sha256>);

impl fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CursorKey")
    }
}

impl CursorKey {
    /// Derives the key from the installation's secret, apart from other uses of that secret.
    pub fn derive(secret: &[u8]) -> Result<Self, InvalidCursor> {
        let mut derive = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| InvalidCursor)?;
        derive.update(b"posduif cursor 1");
        let key = derive.finalize().into_bytes();
        Hmac::new_from_slice(&key).map(CursorKey).map_err(|_| InvalidCursor)
    }

    fn tag(&self, tenant: &TenantId, device: &DeviceId, payload: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        // Neither id can contain a NUL, so the parts cannot run into each other.
        mac.update(tenant.as_str().as_bytes());
        mac.update(&[0]);
        mac.update(device.as_str().as_bytes());
        mac.update(&[0]);
        mac.update(payload);
        mac
    }

    /// The cursor as text for one device: base64url of the tag and the payload.
    pub fn seal(
        &self,
        cursor: &Cursor,
        tenant: &TenantId,
        device: &DeviceId,
    ) -> Result<String, InvalidCursor> {
        let payload = serde_json::to_vec(cursor).map_err(|_| InvalidCursor)?;
        let tag = self.tag(tenant, device, &payload).finalize().into_bytes();
        let mut sealed: Vec<u8> = tag.iter().take(TAG_BYTES).copied().collect();
        sealed.extend_from_slice(&payload);
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Reads a cursor that this key sealed for the same tenant and device; the tag is compared in constant time.
    pub fn open(&self, text: &str, tenant: &TenantId, device: &DeviceId) -> Result<Cursor, InvalidCursor> {
        if text.len() > LONGEST_TEXT {
            return Err(InvalidCursor);
        }
        let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let (tag, payload) = sealed.split_at_checked(TAG_BYTES).ok_or(InvalidCursor)?;
        self.tag(tenant, device, payload).verify_truncated_left(tag).map_err(|_| InvalidCursor)?;
        serde_json::from_slice(payload).map_err(|_| InvalidCursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        Cursor {
            epoch: Epoch::from_random(7),
            rules: RulesHash::from_stored("0011223344556677"),
            at: Resume::Table { from: Lsn::new(9), part: 1, after: Some(vec!["a'b".into()]) },
        }
    }

    fn ids() -> (TenantId, DeviceId) {
        ("t".parse().unwrap(), "d".parse().unwrap())
    }

    #[test]
    fn a_sealed_cursor_opens_for_its_device_only() {
        let key = CursorKey::derive(b"secret").unwrap();
        let (tenant, device) = ids();
        let text = key.seal(&cursor(), &tenant, &device).unwrap();
        assert_eq!(key.open(&text, &tenant, &device), Ok(cursor()));
        assert_eq!(key.open(&text, &tenant, &"other".parse().unwrap()), Err(InvalidCursor));
        assert_eq!(key.open(&text, &"other".parse().unwrap(), &device), Err(InvalidCursor));
        let other = CursorKey::derive(b"another secret").unwrap();
        assert_eq!(other.open(&text, &tenant, &device), Err(InvalidCursor));
    }

    #[test]
    fn no_altered_cursor_opens() {
        let key = CursorKey::derive(b"secret").unwrap();
        let (tenant, device) = ids();
        let text = key.seal(&cursor(), &tenant, &device).unwrap();
        for index in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[index] = if altered[index] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            assert_eq!(key.open(&altered, &tenant, &device), Err(InvalidCursor), "byte {index}");
        }
        for text in ["", "A", "!!", "AAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(key.open(text, &tenant, &device), Err(InvalidCursor));
        }
    }
}
