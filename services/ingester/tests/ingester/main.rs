//! The ingester against real PostgreSQL and Redis.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod fixture;
mod fuzz;

mod alter;
mod decoder;
mod fencing;
mod log;
mod partitions;
mod refusals;
mod restart;
mod schema;
mod transactions;
mod visibility;
