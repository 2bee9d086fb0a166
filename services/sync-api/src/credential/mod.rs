//! What web users present, proven or refused without a look at a table: log-ins and passwords.

pub mod jwt;
pub mod password;
pub mod pseudonym;
