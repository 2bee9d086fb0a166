//! Who calls how often: a request in, leave to be answered out.

mod address;
mod buckets;
pub(super) mod level;
pub(super) mod rates;
pub(super) mod toll;

pub(crate) mod guard;

pub(crate) use rates::Rates;
pub use toll::{Toll, settle};
