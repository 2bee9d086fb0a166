//! Commit (`C`): the transaction's changes are complete.

use posduif_model::Lsn;

use super::reader::{DecodeError, Reader};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The same LSN as in Begin.
    pub commit: Lsn,
    /// The first byte after the commit record: what is confirmed when the transaction is safe.
    pub end: Lsn,
    /// Microseconds since 2000-01-01 00:00 UTC.
    pub committed_at: i64,
}

impl Commit {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        // Flags are unused and zero in every version of the protocol so far.
        reader.u8()?;
        Ok(Commit { commit: reader.lsn()?, end: reader.lsn()?, committed_at: reader.i64()? })
    }
}
