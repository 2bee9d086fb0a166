//! The ingester against real PostgreSQL and Redis.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod fixture;

mod fencing;
mod log;
mod restart;
mod schema;
mod size;
mod types;
mod visibility;
