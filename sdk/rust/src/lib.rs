//! The device: local writes in SQLite in, one server's truth in SQLite out.
//!
//! The application reads and writes ordinary SQLite tables, over [`Device::connection`] or any connection of
//! its own. Triggers copy each local write into an outbox; [`Device::sync`] uploads the outbox, stages every
//! incoming page durably and makes a whole catch-up visible in one SQLite transaction. A process may die at
//! any point: the next sync goes on where the last durable step ended. [`Device::run`] syncs at the right moments
//! and tells how the device stands.
//!
//! The guide for mobile teams is the README beside this crate.

mod cell;
mod device;
mod enroll;
mod error;
mod http;
mod instructions;
mod live;
mod lock;
mod machine;
mod messenger;
mod page;
mod receipt;
mod session;
mod step;
mod store;
mod sync;
mod table;
mod upload;

pub use device::Device;
pub use error::{Error, Result};
pub use instructions::SkippedTable;
pub use live::{Problem, State, Status, StatusChanges};
pub use machine::SyncSummary;
pub use messenger::{Message, Rejected, User};
pub use posduif_model::{DeviceId, Lsn, UserId};
pub use rusqlite;
pub use uuid::Uuid;

/// The guide's examples are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Guide;
