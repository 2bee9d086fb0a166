//! The ingester against real PostgreSQL and Redis.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod fixture;
mod fuzz;
mod scripts;

mod alter;
mod cap;
mod compact;
mod decoder;
mod fencing;
mod log;
mod outage;
mod partitions;
mod refusals;
mod restart;
mod rollback;
mod schema;
mod size;
mod slots;
mod sweep;
mod transactions;
mod trim;
mod types;
mod visibility;
