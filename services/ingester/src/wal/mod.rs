//! PostgreSQL's replication protocol in, WAL events out and confirmed positions back.
//!
//! Source: PostgreSQL manual 54.4, "Streaming Replication Protocol". Login, errors and SCRAM come from the
//! postgres-protocol crate; framing is our own because that crate does not know CopyBothResponse.

mod connection;
mod error;
mod frame;
mod login;
mod slot;
mod status;
mod stream;

pub use connection::{ReplicationConnection, System};
pub use error::WalError;
pub use frame::Halves;
pub use slot::Slot;
pub use status::{Feedback, report};
pub use stream::{WalEvent, receive};
