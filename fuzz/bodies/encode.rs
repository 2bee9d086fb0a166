//! A pgoutput message in, its bytes out: the decoder's mirror, written from the manual and not from the decoder.
//!
//! Source: PostgreSQL manual 54.9, "Logical Replication Message Formats", protocol version 1.

use posduif_ingester::decode::{Identity, Message, OldRow, RelationColumn, Tuple};
use posduif_model::{Lsn, value::Datum};

/// The bytes that a server sends for a message.
pub fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut out = Bytes::default();
    match message {
        Message::Begin(begin) => {
            out.tag(b'B').lsn(begin.commit).i64(begin.committed_at).u32(begin.xid);
        }
        Message::Message(message) => {
            out.tag(b'M').tag(u8::from(message.transactional)).lsn(message.lsn).cstr(message.prefix);
            out.count32(message.content.len()).raw(message.content);
        }
        Message::Commit(commit) => {
            out.tag(b'C').tag(0).lsn(commit.commit).lsn(commit.end).i64(commit.committed_at);
        }
        Message::Origin(origin) => {
            out.tag(b'O').lsn(origin.lsn).cstr(origin.name);
        }
        Message::Relation(relation) => {
            let identity = match relation.identity {
                Identity::Default => b'd',
                Identity::Nothing => b'n',
                Identity::Full => b'f',
                Identity::Index => b'i',
            };
            out.tag(b'R').u32(relation.oid);
            out.cstr(relation.table.schema()).cstr(relation.table.name()).tag(identity);
            out.count16(relation.columns.len());
            relation.columns.iter().for_each(|column| out.column(column));
        }
        Message::Type(name) => {
            out.tag(b'Y').u32(name.oid).cstr(name.schema).cstr(name.name);
        }
        Message::Insert(insert) => {
            out.tag(b'I').u32(insert.relation).tag(b'N').tuple(&insert.new);
        }
        Message::Update(update) => {
            out.tag(b'U').u32(update.relation);
            update.old.iter().for_each(|old| out.old(old));
            out.tag(b'N').tuple(&update.new);
        }
        Message::Delete(delete) => {
            out.tag(b'D').u32(delete.relation).old(&delete.old);
        }
        Message::Truncate(truncate) => {
            let flags = u8::from(truncate.cascade) | u8::from(truncate.restart_identity) << 1;
            out.tag(b'T').count32(truncate.relations.len()).tag(flags);
            truncate.relations.iter().for_each(|oid| {
                out.u32(*oid);
            });
        }
    }
    out.0
}

#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn tag(&mut self, tag: u8) -> &mut Self {
        self.raw(&[tag])
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    fn lsn(&mut self, lsn: Lsn) -> &mut Self {
        self.raw(&lsn.get().to_be_bytes())
    }

    fn cstr(&mut self, text: &str) -> &mut Self {
        self.raw(text.as_bytes()).tag(0)
    }

    fn count16(&mut self, count: usize) -> &mut Self {
        self.raw(&i16::try_from(count).expect("a count of columns").to_be_bytes())
    }

    fn count32(&mut self, count: usize) -> &mut Self {
        self.raw(&i32::try_from(count).expect("a length").to_be_bytes())
    }

    fn column(&mut self, column: &RelationColumn) {
        self.tag(u8::from(column.identity)).cstr(&column.name).u32(column.type_oid);
        self.raw(&column.type_modifier.to_be_bytes());
    }

    fn old(&mut self, old: &OldRow<'_>) {
        match old {
            OldRow::Key(row) => self.tag(b'K').tuple(row),
            OldRow::Full(row) => self.tag(b'O').tuple(row),
        }
    }

    fn tuple(&mut self, row: &Tuple<'_>) {
        self.count16(row.len());
        for value in row {
            match value {
                Datum::Null => self.tag(b'n'),
                Datum::Unchanged => self.tag(b'u'),
                Datum::Text(text) => self.tag(b't').count32(text.len()).raw(text.as_bytes()),
            };
        }
    }
}
