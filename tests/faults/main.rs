//! The ingester as a real process under random work and real faults, against an independent model of its log.
//!
//! `POSDUIF_FAULT_SEED` repeats a run, or begins a new one with `random`. Numbers in the environment make runs longer: `POSDUIF_FAULT_ROUNDS` (checkpoints
//! of the oracle), `_KILLS`, `_ZOMBIES`, `_CRASHES` (of a server), `_CUTS` (of connections to Redis), `_COMPACTIONS`, `_STALL`
//! and `_OUTAGE` (seconds), `_ROWS` (of the large transaction), and of several ingesters `_DEATHS`, `_FREEZES`, `_ROLLS` (restarts of both)
//! and `_TROUBLES` (rounds of faults in some of eight tenants).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../run.rs"]
mod run;

mod schema;
mod tenant;
mod values;

mod expected;
mod statement;

mod auditor;
mod device;
mod writer;

mod campaign;

mod fleet;

mod compaction;
mod cut;
mod deaths;
mod kill;
mod large;
mod oracle;
mod outage;
mod rolls;
mod server;
mod stall;
mod troubles;
mod zombie;

/// The variable that repeats a run, or begins a new one with `random`.
const SEED: &str = "POSDUIF_FAULT_SEED";
/// The seed of an ordinary run.
const ORDINARY: u64 = 4244;
