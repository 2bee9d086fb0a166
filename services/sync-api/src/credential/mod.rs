//! What callers present, proven or refused without a look at a table: JWTs, opaque tokens, passwords.

pub mod jwt;
pub mod password;
pub mod token;
