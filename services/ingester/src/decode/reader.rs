//! Bytes in, the integers and strings of the replication protocol out; every read is checked.

use posduif_model::Lsn;

/// Bytes that are not a message of the protocol.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("the message ends {missing} bytes too early")]
    Short { missing: usize },
    #[error("{0} bytes follow the end of the message")]
    Trailing(usize),
    #[error("unknown {what} tag {tag:#04x}")]
    Tag { what: &'static str, tag: u8 },
    #[error("text is not UTF-8; the database must have ENCODING 'UTF8'")]
    Encoding,
    #[error("a string is not terminated")]
    Unterminated,
    #[error("a count or length is negative")]
    Negative,
    #[error("a name cannot be a table's")]
    Name,
}

/// A cursor over the bytes of one message. Integers are big-endian (manual 54.1, "message data types").
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(DecodeError::Short { missing: count.saturating_sub(self.rest.len()) })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Short { missing: N.saturating_sub(self.rest.len()) })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    pub fn lsn(&mut self) -> Result<Lsn, DecodeError> {
        self.array().map(u64::from_be_bytes).map(Lsn::new)
    }

    /// A 16-bit count of columns.
    pub fn count16(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(self.array().map(i16::from_be_bytes)?).map_err(|_| DecodeError::Negative)
    }

    /// A 32-bit count or length in bytes.
    pub fn count32(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(self.array().map(i32::from_be_bytes)?).map_err(|_| DecodeError::Negative)
    }

    /// A string that ends with a zero byte.
    pub fn cstr(&mut self) -> Result<&'a str, DecodeError> {
        let end = self.rest.iter().position(|b| *b == 0).ok_or(DecodeError::Unterminated)?;
        let text = self.bytes(end)?;
        self.bytes(1)?;
        std::str::from_utf8(text).map_err(|_| DecodeError::Encoding)
    }

    /// Text with a 32-bit length before it.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.count32()?;
        std::str::from_utf8(self.bytes(length)?).map_err(|_| DecodeError::Encoding)
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Ends the message; leftover bytes mean that it was misread.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }
}
