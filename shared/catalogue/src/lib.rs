//! A tenant's system catalogue and the declared tables in, what is there and what cannot be synced out.
//!
//! `posduif migrate` and the ingester both look through this crate, so they say the same of the same table.

pub mod capture;
mod declared;
mod facts;
mod judge;
mod partitions;
mod problem;
pub mod rights;

pub use facts::{
    CaptureFacts, ColumnFacts, Facts, IndexFacts, PartitionFacts, PublicationFacts, PublishedFacts,
    TableFacts,
};
pub use judge::judge;
pub use problem::{Cure, Problem, Problems};
