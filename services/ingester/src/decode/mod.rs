//! The body of a replication message in, a pgoutput message out.
//!
//! Source: PostgreSQL manual 54.9, "Logical Replication Message Formats", protocol version 1. Every message has a
//! file of its own; all of them read through one bounds-checked reader, so that no input can make them panic.

mod begin;
mod commit;
mod message;
mod origin;
mod reader;
mod relation;
mod row;
mod truncate;
mod tuple;
mod typename;

pub use begin::Begin;
pub use commit::Commit;
pub use message::LogicalMessage;
pub use origin::Origin;
pub use reader::DecodeError;
pub use relation::{Identity, Relation, RelationColumn};
pub use row::{Delete, Insert, OldRow, Update};
pub use truncate::Truncate;
pub use tuple::Tuple;
pub use typename::TypeName;

use reader::Reader;

/// One message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Begin(Begin),
    Message(LogicalMessage<'a>),
    Commit(Commit),
    Origin(Origin<'a>),
    Relation(Relation),
    Type(TypeName<'a>),
    Insert(Insert<'a>),
    Update(Update<'a>),
    Delete(Delete<'a>),
    Truncate(Truncate),
}

/// Decodes one message.
///
/// # Errors
/// Any byte that the manual does not explain: skipping a message would lose a change in silence.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let message = match reader.u8()? {
        b'B' => Message::Begin(Begin::read(&mut reader)?),
        b'M' => Message::Message(LogicalMessage::read(&mut reader)?),
        b'C' => Message::Commit(Commit::read(&mut reader)?),
        b'O' => Message::Origin(Origin::read(&mut reader)?),
        b'R' => Message::Relation(Relation::read(&mut reader)?),
        b'Y' => Message::Type(TypeName::read(&mut reader)?),
        b'I' => Message::Insert(Insert::read(&mut reader)?),
        b'U' => Message::Update(Update::read(&mut reader)?),
        b'D' => Message::Delete(Delete::read(&mut reader)?),
        b'T' => Message::Truncate(Truncate::read(&mut reader)?),
        tag => return Err(DecodeError::Tag { what: "message", tag }),
    };
    reader.finish()?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_input_makes_the_decoder_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }

        #[test]
        fn no_tail_after_a_known_tag_makes_the_decoder_panic(tag in proptest::sample::select(b"BMCORYIUDT".to_vec()), tail: Vec<u8>) {
            let _ = decode(&[vec![tag], tail].concat());
        }
    }

    #[test]
    fn a_cut_message_is_an_error_at_every_length() {
        let mut whole = b"U\0\0\0\x07O\0\x02t\0\0\0\x01at\0\0\0\x01bN\0\x02t\0\0\0\x01au".to_vec();
        assert!(decode(&whole).is_ok());
        while whole.pop().is_some() {
            assert!(decode(&whole).is_err(), "{} bytes", whole.len());
        }
    }

    #[test]
    fn bytes_after_a_message_are_an_error() {
        let begin = [b"B".as_slice(), &[0; 20]].concat();
        assert!(decode(&begin).is_ok());
        assert_eq!(decode(&[begin, vec![0]].concat()), Err(DecodeError::Trailing(1)));
    }
}
