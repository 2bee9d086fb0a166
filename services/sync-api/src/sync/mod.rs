//! Cursors and uploads in, pages and results out.

pub mod error;
pub mod stage;

pub mod admission;
pub mod body;
pub mod page;

mod arrival;
mod filling;
mod log_page;
mod table_page;

pub mod held;
pub mod incoming;
pub mod status;

pub mod change;
mod count;
pub mod input;
pub mod lenient;
mod message;
mod moment;
mod raw_items;
pub mod upload;

mod attempt;
pub mod outcome;
pub mod outgoing;
mod row;

pub use error::SyncError;
