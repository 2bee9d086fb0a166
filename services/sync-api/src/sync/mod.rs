//! Cursors and uploads in, pages and results out.

pub mod error;
pub mod stage;

pub mod body;
mod filling;
mod log_page;
mod table_page;

pub mod incoming;

pub mod upload;

pub mod outgoing;

pub use error::SyncError;
