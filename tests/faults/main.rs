//! The ingester as a real process under random work and real faults, against an independent model of its log.
//!
//! Lengths come from the environment: `POSDUIF_FAULT_SEED` repeats a run, `POSDUIF_FAULT_ROUNDS` (checkpoints of the
//! oracle), `POSDUIF_FAULT_KILLS`, `POSDUIF_FAULT_CRASHES`, `POSDUIF_FAULT_ZOMBIES`, `POSDUIF_FAULT_STALL` and `POSDUIF_FAULT_OUTAGE`
//! (seconds), `POSDUIF_FAULT_ROWS` (of the large transaction) make it longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

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

mod compaction;
mod kill;
mod large;
mod oracle;
mod outage;
mod server;
mod stall;
mod zombie;
