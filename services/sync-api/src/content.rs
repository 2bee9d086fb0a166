//! A text in, the content of a message out, or why it cannot be one.

use crate::code::Code;

/// The longest content, in bytes of UTF-8.
pub const LONGEST: usize = 64 * 1024;

/// The text of a message: not blank, not too long, storable by PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content(String);

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidContent {
    #[error("a message needs content")]
    Empty,
    #[error("content must not hold the character U+0000")]
    Nul,
    #[error("content must not be longer than {LONGEST} bytes")]
    TooLong,
}

impl InvalidContent {
    pub fn code(self) -> Code {
        match self {
            InvalidContent::Empty => Code::EmptyMessage,
            InvalidContent::Nul | InvalidContent::TooLong => Code::ValidationError,
        }
    }
}

impl Content {
    pub fn parse(text: String) -> Result<Self, InvalidContent> {
        if text.trim().is_empty() {
            return Err(InvalidContent::Empty);
        }
        if text.contains('\0') {
            return Err(InvalidContent::Nul);
        }
        if text.len() > LONGEST {
            return Err(InvalidContent::TooLong);
        }
        Ok(Content(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_kept_as_it_is_or_refused() {
        assert_eq!(Content::parse(" a\n".into()).unwrap().as_str(), " a\n");
        assert_eq!(Content::parse(" \n".into()), Err(InvalidContent::Empty));
        assert_eq!(Content::parse("a\0b".into()), Err(InvalidContent::Nul));
        assert!(Content::parse("x".repeat(LONGEST)).is_ok());
        assert_eq!(Content::parse("x".repeat(LONGEST + 1)), Err(InvalidContent::TooLong));
    }
}
