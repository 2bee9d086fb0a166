//! Cursors and uploads in, pages and results out.

pub mod error;
pub mod stage;

pub mod admission;
pub mod body;

mod arrival;
mod filling;
mod log_page;
mod table_page;

pub mod held;
pub mod incoming;
pub mod status;

pub mod upload;

pub mod outgoing;

pub use error::SyncError;
