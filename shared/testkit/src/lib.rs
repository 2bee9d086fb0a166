//! Real servers, real binaries and real faults for the tests of all crates; for development only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod eventually;

pub mod logs;
mod scratch;

pub mod chaos;
mod servers;

mod backup;
mod standby;

mod database;

pub mod binaries;
mod process;

pub use backup::{Backup, start_archive};
pub use database::Database;
pub use eventually::{eventually, eventually_true};
pub use posduif_provision::shipped::{ADMIN, API, INGESTER, TOOL};
pub use process::Process;
pub use scratch::Scratch;
pub use servers::{Servers, session};
pub use standby::Standby;
