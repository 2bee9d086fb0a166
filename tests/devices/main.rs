//! Devices on bad networks, beside writers and before replicas that die, end up right: every part as a real process.
//!
//! `POSDUIF_DEVICES_SEED` repeats a run, or begins a new one with `random`. Numbers in the environment make runs longer:
//! `POSDUIF_DEVICES_CUT_STEP` (1 cuts after every byte), `_SNAPSHOTS`, `_KILLS` (of a replica), `_ROUNDS` (of offline
//! edits and syncs).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../run.rs"]
mod run;

mod dns;
mod recorder;

mod balancer;
mod site;
mod web;

mod shape;
mod whole;

mod ledger;
mod watch;
mod writer;

mod phone;
mod verdict;

mod callers;
mod cut;
mod lives;
mod owned;
mod replicas;
mod rule;
mod snapshots;
mod streams;

/// The variable that repeats a run, or begins a new one with `random`.
const SEED: &str = "POSDUIF_DEVICES_SEED";
/// The seed of an ordinary run.
const ORDINARY: u64 = 4245;
