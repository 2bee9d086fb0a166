//! PostgreSQL fails over, is restored or splits in two under a load of writers and devices: real standbys, every part a
//! real process.
//!
//! `POSDUIF_FAILOVER_SEED` repeats a run, or begins a new one with `random`. A number in the environment makes runs longer:
//! `POSDUIF_FAILOVER_TRANSACTIONS` (before each fault).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../run.rs"]
mod run;

#[path = "../devices/shape.rs"]
mod shape;
#[path = "../devices/site.rs"]
#[allow(dead_code, reason = "these tests use a part of it")]
mod site;
#[path = "../devices/watch.rs"]
mod watch;
#[path = "../devices/web.rs"]
#[allow(dead_code, reason = "these tests use a part of it")]
mod web;
#[path = "../devices/whole.rs"]
mod whole;
#[path = "../devices/writer.rs"]
mod writer;

#[path = "../devices/phone.rs"]
#[allow(dead_code, reason = "these tests use a part of it")]
mod phone;

mod load;
mod roaming;

mod mark;
mod stage;
mod status;

mod behind;
mod promotion;
mod read_only;
mod restored;
mod snapshot;
mod split;

/// The variable that repeats a run, or begins a new one with `random`.
const SEED: &str = "POSDUIF_FAILOVER_SEED";
/// The seed of an ordinary run.
const ORDINARY: u64 = 4246;
