//! Insert (`I`), Update (`U`) and Delete (`D`): one row each.

use super::{
    reader::{DecodeError, Reader},
    tuple::{self, Tuple},
};

/// The row before an update or delete, as far as the replica identity keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldRow<'a> {
    /// Only the identity's columns have values.
    Key(Tuple<'a>),
    /// The whole row: REPLICA IDENTITY FULL.
    Full(Tuple<'a>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insert<'a> {
    pub relation: u32,
    pub new: Tuple<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update<'a> {
    pub relation: u32,
    /// Absent when the identity is not FULL and the update left its columns alone.
    pub old: Option<OldRow<'a>>,
    pub new: Tuple<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    pub relation: u32,
    pub old: OldRow<'a>,
}

fn unknown(tag: u8) -> DecodeError {
    DecodeError::Tag { what: "row", tag }
}

impl<'a> Insert<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let relation = reader.u32()?;
        match reader.u8()? {
            b'N' => Ok(Insert { relation, new: tuple::read(reader)? }),
            tag => Err(unknown(tag)),
        }
    }
}

impl<'a> Update<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let relation = reader.u32()?;
        let (old, tag) = match reader.u8()? {
            b'K' => (Some(OldRow::Key(tuple::read(reader)?)), reader.u8()?),
            b'O' => (Some(OldRow::Full(tuple::read(reader)?)), reader.u8()?),
            tag => (None, tag),
        };
        match tag {
            b'N' => Ok(Update { relation, old, new: tuple::read(reader)? }),
            tag => Err(unknown(tag)),
        }
    }
}

impl<'a> Delete<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let relation = reader.u32()?;
        let old = match reader.u8()? {
            b'K' => OldRow::Key(tuple::read(reader)?),
            b'O' => OldRow::Full(tuple::read(reader)?),
            tag => return Err(unknown(tag)),
        };
        Ok(Delete { relation, old })
    }
}
