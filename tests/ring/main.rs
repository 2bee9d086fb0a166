//! The whole ring with real processes: a row changes in PostgreSQL or on a device, and arrives at the other end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod corpus;
mod installation;
mod web;

mod conversation;
mod fleet;
mod limited;
mod polled;
mod secrets;
mod secured;
mod watch;
