//! Type (`Y`): the name of a type that is not built in.

use super::reader::{DecodeError, Reader};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeName<'a> {
    pub oid: u32,
    pub schema: &'a str,
    pub name: &'a str,
}

impl<'a> TypeName<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(TypeName { oid: reader.u32()?, schema: reader.cstr()?, name: reader.cstr()? })
    }
}
