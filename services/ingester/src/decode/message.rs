//! Message (`M`): what `pg_logical_emit_message` wrote.

use posduif_model::Lsn;

use super::reader::{DecodeError, Reader};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogicalMessage<'a> {
    /// Whether it belongs to the transaction around it.
    pub transactional: bool,
    pub lsn: Lsn,
    pub prefix: &'a str,
    pub content: &'a [u8],
}

impl<'a> LogicalMessage<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let transactional = reader.u8()? & 1 == 1;
        let (lsn, prefix) = (reader.lsn()?, reader.cstr()?);
        let length = reader.count32()?;
        Ok(LogicalMessage { transactional, lsn, prefix, content: reader.bytes(length)? })
    }
}
