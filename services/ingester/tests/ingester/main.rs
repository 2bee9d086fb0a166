//! The ingester against real PostgreSQL and Redis.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod exposition;
mod fixture;
mod process;
mod scripts;

mod canary;
mod cap;
mod compact;
mod documents;
mod fencing;
mod log;
mod metrics;
mod outage;
mod restart;
mod rollback;
mod schema;
mod sweep;
mod trim;
mod visibility;
