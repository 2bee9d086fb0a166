//! TupleData: the values of one row.

use posduif_model::value::Datum;

use super::reader::{DecodeError, Reader};

/// The columns of a row in the order of its Relation message.
pub type Tuple<'a> = Vec<Datum<'a>>;

pub(super) fn read<'a>(reader: &mut Reader<'a>) -> Result<Tuple<'a>, DecodeError> {
    let count = reader.count16()?;
    let mut row = Vec::with_capacity(count.min(reader.remaining()));
    for _ in 0..count {
        row.push(match reader.u8()? {
            b'n' => Datum::Null,
            b'u' => Datum::Unchanged,
            b't' => Datum::Text(reader.text()?),
            // Binary values (`b`) come only when the client asks for them.
            tag => return Err(DecodeError::Tag { what: "column", tag }),
        });
    }
    Ok(row)
}
