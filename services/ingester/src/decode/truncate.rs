//! Truncate (`T`): tables were emptied.

use super::reader::{DecodeError, Reader};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncate {
    pub cascade: bool,
    pub restart_identity: bool,
    /// All tables of the command that are published.
    pub relations: Vec<u32>,
}

impl Truncate {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = reader.count32()?;
        let flags = reader.u8()?;
        let mut relations = Vec::with_capacity(count.min(reader.remaining()));
        for _ in 0..count {
            relations.push(reader.u32()?);
        }
        Ok(Truncate { cascade: flags & 1 == 1, restart_identity: flags & 2 == 2, relations })
    }
}
