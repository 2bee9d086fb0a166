//! The API against a real PostgreSQL and a real Redis; the log is written as the ingester writes it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod accounts;
mod admission;
mod changes;
mod compression;
mod confirmation;
mod conflicts;
mod crowding;
mod devices;
mod document;
mod documented;
mod enrollment;
mod errors;
mod fixture;
mod held;
mod incoming;
mod interleaving;
mod limits;
mod listener;
mod live;
mod live_faults;
mod live_rows;
mod live_web;
mod login;
mod messages;
mod oracle;
mod outgoing;
mod presence;
mod pruning;
mod receipts;
mod rights;
mod snapshot;
mod status;
mod tables;
