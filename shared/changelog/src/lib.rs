//! The log between the services: the ingester writes changes into Redis Streams, API replicas read them.
//!
//! A tenant's keys all carry the hash tag `{tenant}`, so Redis Cluster keeps them on one shard: scripts change
//! them together, and what a fail-over loses is always a tail of what was written.

pub mod account_auth;
mod arriving;
pub mod attempts;
pub mod batch;
pub mod commits;
pub mod compact;
pub mod connect;
pub mod delivery;
pub mod device_auth;
pub mod durability;
pub mod entry;
pub mod error;
pub mod fleet;
pub mod fold;
pub mod key;
mod lease;
pub mod page;
pub mod pending;
pub mod position;
pub mod presence;
pub mod reader;
pub mod record;
pub mod remembered;
pub mod removal;
mod script;
pub mod state;
pub mod survey;
mod sweep;
pub mod ticket;
mod trim;
pub mod wake;
pub mod wanted;
pub mod writer;

pub use batch::Batch;
pub use connect::{RedisPool, Timeouts, pool};
pub use delivery::Delivered;
pub use entry::Entry;
pub use error::LogError;
pub use key::Keys;
pub use page::Page;
pub use position::Confirmed;
pub use reader::LogReader;
pub use record::CommitRecord;
pub use state::{Heartbeat, LogState, Supply, Watermark};
pub use writer::LogWriter;
