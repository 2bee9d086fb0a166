//! Origin (`O`): the transaction was replicated from elsewhere.

use posduif_model::Lsn;

use super::reader::{DecodeError, Reader};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The commit's LSN on the server it came from.
    pub lsn: Lsn,
    pub name: &'a str,
}

impl<'a> Origin<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Origin { lsn: reader.lsn()?, name: reader.cstr()? })
    }
}
