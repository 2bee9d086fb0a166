//! Relation (`R`): the shape of a table, sent before its first row and after each change of it.

use posduif_model::TableName;

use super::reader::{DecodeError, Reader};

/// Which columns of the old row an UPDATE or DELETE carries (`pg_class.relreplident`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    Default,
    Nothing,
    Full,
    Index,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn {
    /// Whether it belongs to the replica identity.
    pub identity: bool,
    pub name: String,
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`, for example the length of a varchar.
    pub type_modifier: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub oid: u32,
    pub table: TableName,
    pub identity: Identity,
    /// In the order in which tuples carry them.
    pub columns: Vec<RelationColumn>,
}

impl Relation {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let oid = reader.u32()?;
        // An empty namespace stands for pg_catalog.
        let schema = match reader.cstr()? {
            "" => "pg_catalog",
            schema => schema,
        };
        let table = TableName::new(schema, reader.cstr()?).map_err(|_| DecodeError::Name)?;
        let identity = match reader.u8()? {
            b'd' => Identity::Default,
            b'n' => Identity::Nothing,
            b'f' => Identity::Full,
            b'i' => Identity::Index,
            tag => return Err(DecodeError::Tag { what: "replica identity", tag }),
        };
        let count = reader.count16()?;
        let mut columns = Vec::with_capacity(count.min(reader.remaining()));
        for _ in 0..count {
            columns.push(RelationColumn {
                identity: reader.u8()? & 1 == 1,
                name: reader.cstr()?.to_owned(),
                type_oid: reader.u32()?,
                type_modifier: reader.u32()?.cast_signed(),
            });
        }
        Ok(Relation { oid, table, identity, columns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relation_names_its_columns_in_tuple_order() {
        let bytes = b"\0\0\x40\0public\0tasks\0f\0\x02\x01id\0\0\0\x0b\x86\xff\xff\xff\xff\0title\0\0\0\0\x19\xff\xff\xff\xff";
        let relation = Relation::read(&mut Reader::new(bytes)).unwrap();
        assert_eq!(relation.table.to_string(), "public.tasks");
        assert_eq!(relation.identity, Identity::Full);
        assert_eq!(relation.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["id", "title"]);
        assert_eq!(relation.columns[0].type_oid, 2950);
        assert_eq!(relation.columns[1].type_modifier, -1);
    }
}
