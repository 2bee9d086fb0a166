//! The position of a device as it travels: opaque to the device, authenticated by the server.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{
    epoch::Epoch,
    id::{DeviceId, TenantId, UserId},
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
    /// The server's timeline by the log's account. Within an epoch it may change, but not under a snapshot: its pages may
    /// show what the promoted server never had.
    #[serde(rename = "l")]
    pub timeline: u32,
    #[serde(rename = "a")]
    pub at: Resume,
}

/// The stage of a device's sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resume {
    /// Everything up to and including this commit is on the device.
    #[serde(rename = "s")]
    Stream {
        commit: Lsn,
        /// What coming back with this cursor proves to have arrived, if there is anything to note of it.
        #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
        confirms: Option<Confirms>,
        /// Where the catch-up ends that the device is in the middle of.
        #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
        goal: Option<Goal>,
    },
    /// In the table pages of a snapshot that began when the watermark stood at `from`.
    #[serde(rename = "t")]
    Table {
        from: Lsn,
        /// Which part of the snapshot: an index into the list of (table, bucket) pairs.
        part: usize,
        /// The last row sent; absent at the start of a part.
        after: Option<LastRow>,
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
        /// Where the replay began.
        from: Lsn,
        /// Whether the snapshot so far holds messages whose arrival is to be noted.
        #[serde(rename = "w", default)]
        awaits: bool,
        /// Where the replay ends.
        #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
        goal: Option<Goal>,
    },
}

/// A watermark at which a device will show what it has collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goal {
    #[serde(rename = "c")]
    pub commit: Lsn,
    /// The WAL up to here holds nothing more for the log than what lies up to `commit`.
    #[serde(rename = "e")]
    pub end: Lsn,
}

/// Messages that wait for the word that they have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirms {
    /// They are in the log after this commit, up to the cursor's.
    #[serde(rename = "f")]
    pub from: Lsn,
    /// They are also in the tables of the snapshot that began there.
    #[serde(rename = "t", default)]
    pub tables: bool,
}

/// The last row of a part of a snapshot that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRow {
    /// Names the columns and types of the key: under another key the values mean another place, or none.
    #[serde(rename = "s")]
    pub shape: String,
    /// The key's values as PostgreSQL's text.
    #[serde(rename = "k")]
    pub key: Vec<String>,
}

/// The cursor was not made by this installation for this device and user.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a cursor of this server for this device")]
pub struct InvalidCursor;

/// The device could not send this cursor back.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("a cursor cannot be written")]
    Unwritable(#[from] serde_json::Error),
    #[error("a cursor of {0} bytes is longer than {LONGEST_TEXT}: a key of a synced table is too long")]
    TooLong(usize),
}

fn derived(secret: &[u8]) -> Result<Hmac<Sha256>, InvalidCursor> {
    let mut derive = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| InvalidCursor)?;
    derive.update(b"posduif cursor 1");
    Hmac::new_from_slice(&derive.finalize().into_bytes()).map_err(|_| InvalidCursor)
}

fn tag(
    key: &Hmac<Sha256>,
    tenant: &TenantId,
    device: &DeviceId,
    user: UserId,
    payload: &[u8],
) -> Hmac<Sha256> {
    let mut mac = key.clone();
    // Neither id can contain a NUL, so the parts cannot run into each other.
    mac.update(tenant.as_str().as_bytes());
    mac.update(&[0]);
    mac.update(device.as_str().as_bytes());
    mac.update(&[0]);
    mac.update(user.uuid().as_bytes());
    mac.update(payload);
    mac
}

const TAG_BYTES: usize = 16;
const LONGEST_TEXT: usize = 16 * 1024;

/// The secrets that authenticate cursors, the same on every replica: one seals, and every one of them opens.
#[derive(Clone)]
pub struct CursorKey {
    sealing: Hmac<Sha256>,
    accepted: Vec<Hmac<Sha256>>,
}

impl fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CursorKey")
    }
}

impl CursorKey {
    /// Derives the key from the installation's secret, apart from other uses of that secret.
    pub fn derive(secret: &[u8]) -> Result<Self, InvalidCursor> {
        Ok(CursorKey { sealing: derived(secret)?, accepted: Vec::new() })
    }

    /// Opens what another secret of the installation sealed, too: devices come back with cursors of long ago.
    pub fn accepting(mut self, secret: &[u8]) -> Result<Self, InvalidCursor> {
        self.accepted.push(derived(secret)?);
        Ok(self)
    }

    /// The cursor as text for one device of one user: base64url of the tag and the payload.
    ///
    /// # Errors
    /// `TooLong` for a text that [`CursorKey::open`] would not read.
    pub fn seal(
        &self,
        cursor: &Cursor,
        tenant: &TenantId,
        device: &DeviceId,
        user: UserId,
    ) -> Result<String, SealError> {
        let payload = serde_json::to_vec(cursor)?;
        let tag = tag(&self.sealing, tenant, device, user, &payload).finalize().into_bytes();
        let mut sealed: Vec<u8> = tag.iter().take(TAG_BYTES).copied().collect();
        sealed.extend_from_slice(&payload);
        let text = URL_SAFE_NO_PAD.encode(sealed);
        if text.len() > LONGEST_TEXT { Err(SealError::TooLong(text.len())) } else { Ok(text) }
    }

    /// Reads a cursor that one of these keys sealed for the same tenant, device and user; the tag is compared in constant
    /// time.
    pub fn open(
        &self,
        text: &str,
        tenant: &TenantId,
        device: &DeviceId,
        user: UserId,
    ) -> Result<Cursor, InvalidCursor> {
        if text.len() > LONGEST_TEXT {
            return Err(InvalidCursor);
        }
        let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let (given, payload) = sealed.split_at_checked(TAG_BYTES).ok_or(InvalidCursor)?;
        let mut keys = std::iter::once(&self.sealing).chain(&self.accepted);
        let is_ours = |key| tag(key, tenant, device, user, payload).verify_truncated_left(given).is_ok();
        if !keys.any(is_ours) {
            return Err(InvalidCursor);
        }
        serde_json::from_slice(payload).map_err(|_| InvalidCursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(key: &str) -> Cursor {
        let last = LastRow { shape: "s".into(), key: vec![key.into()] };
        Cursor {
            epoch: Epoch::from_random(7),
            rules: RulesHash::from_stored("0011223344556677"),
            timeline: 1,
            at: Resume::Table { from: Lsn::new(9), part: 1, after: Some(last) },
        }
    }

    fn ids() -> (TenantId, DeviceId, UserId) {
        let user = "00000000-0000-0000-0000-000000000001".parse().unwrap();
        ("t".parse().unwrap(), "d".parse().unwrap(), user)
    }

    #[test]
    fn a_sealed_cursor_opens_for_its_device_and_user_only() {
        let key = CursorKey::derive(b"secret").unwrap();
        let (tenant, device, user) = ids();
        let text = key.seal(&cursor("a'b"), &tenant, &device, user).unwrap();
        assert_eq!(key.open(&text, &tenant, &device, user), Ok(cursor("a'b")));
        assert_eq!(key.open(&text, &tenant, &"other".parse().unwrap(), user), Err(InvalidCursor));
        assert_eq!(key.open(&text, &"other".parse().unwrap(), &device, user), Err(InvalidCursor));
        let another = "00000000-0000-0000-0000-000000000002".parse().unwrap();
        assert_eq!(key.open(&text, &tenant, &device, another), Err(InvalidCursor));
        let other = CursorKey::derive(b"another secret").unwrap();
        assert_eq!(other.open(&text, &tenant, &device, user), Err(InvalidCursor));
    }

    #[test]
    fn a_cursor_of_an_accepted_secret_opens_and_new_ones_are_of_the_first() {
        let (old, new) = (CursorKey::derive(b"old").unwrap(), CursorKey::derive(b"new").unwrap());
        let both = new.clone().accepting(b"older").unwrap().accepting(b"old").unwrap();
        let (tenant, device, user) = ids();
        let sealed = |key: &CursorKey| key.seal(&cursor("a"), &tenant, &device, user).unwrap();
        assert_eq!(both.open(&sealed(&old), &tenant, &device, user), Ok(cursor("a")));
        assert_eq!(new.open(&sealed(&both), &tenant, &device, user), Ok(cursor("a")));
        assert_eq!(old.open(&sealed(&both), &tenant, &device, user), Err(InvalidCursor));
    }

    #[test]
    fn no_altered_cursor_opens() {
        let key = CursorKey::derive(b"secret").unwrap();
        let (tenant, device, user) = ids();
        let text = key.seal(&cursor("a"), &tenant, &device, user).unwrap();
        for index in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[index] = if altered[index] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            assert_eq!(key.open(&altered, &tenant, &device, user), Err(InvalidCursor), "byte {index}");
        }
        for text in ["", "A", "!!", "AAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(key.open(text, &tenant, &device, user), Err(InvalidCursor));
        }
    }

    #[test]
    fn whatever_is_sealed_is_short_enough_to_be_opened() {
        let key = CursorKey::derive(b"secret").unwrap();
        let (tenant, device, user) = ids();
        for length in (LONGEST_TEXT / 2)..LONGEST_TEXT {
            let cursor = cursor(&"x".repeat(length));
            match key.seal(&cursor, &tenant, &device, user) {
                Ok(text) => assert_eq!(key.open(&text, &tenant, &device, user), Ok(cursor)),
                Err(error) => {
                    assert!(matches!(error, SealError::TooLong(_)), "{error}");
                    return;
                }
            }
        }
        panic!("a key of the cursor's whole length was sealed");
    }
}
