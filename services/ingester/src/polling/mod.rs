//! A tenant's tables in, batches and watermarks in the log out: the source where there is no slot.
//!
//! One poll is one snapshot of PostgreSQL, published as one commit: every row that the snapshot before does not show as it
//! is now. So every state that readers see is one that PostgreSQL showed.

mod error;
mod poller;
mod round;
mod table;

pub use error::PollError;
pub use poller::{Poller, Turn, begun};
pub use table::PolledTable;
