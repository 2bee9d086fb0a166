//! The ingester against real PostgreSQL and Redis.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod exposition;
mod fixture;
mod fuzz;
mod gaps;
mod process;
mod receiver;
mod scripts;

mod alter;
mod canary;
mod cap;
mod cold;
mod compact;
mod configured;
mod decoder;
mod documents;
mod durability;
mod fencing;
mod fleet;
mod leases;
mod log;
mod memory;
mod metrics;
mod outage;
mod partitions;
mod polling;
mod power;
mod refusals;
mod restart;
mod rights;
mod rollback;
mod schema;
mod size;
mod slots;
mod standing;
mod sweep;
mod switching;
mod transactions;
mod trim;
mod types;
mod visibility;
mod webhook;
mod webhook_faults;
mod webhook_tls;
