//! The operator's tool as a process, against real servers and real services.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod fixture;

mod operator;
mod status;
mod tenants;
