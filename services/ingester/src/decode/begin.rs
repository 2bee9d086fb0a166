//! Begin (`B`): a transaction's changes follow.

use posduif_model::Lsn;

use super::reader::{DecodeError, Reader};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The LSN of the commit record: the transaction's place in the log. (The header of the replication message
    /// has an LSN too, but neighbouring transactions may share it.)
    pub commit: Lsn,
    /// Microseconds since 2000-01-01 00:00 UTC.
    pub committed_at: i64,
    /// The top-level transaction's id, 32 bits of the 64 that a snapshot shows.
    pub xid: u32,
}

impl Begin {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Begin { commit: reader.lsn()?, committed_at: reader.i64()?, xid: reader.u32()? })
    }
}
