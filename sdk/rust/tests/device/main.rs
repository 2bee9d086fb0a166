//! A real device against a scripted server on loopback.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod catch_up;
mod enrolment;
mod ledger;
mod live;
mod outbox;
mod owned;
mod refusal;
mod resume;
mod rules;
mod server;
mod snapshot;
mod upload;
mod write_rules;
