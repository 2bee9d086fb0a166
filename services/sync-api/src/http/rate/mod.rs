//! Who calls how often: a request in, leave to be answered out.

mod address;
mod buckets;
pub(super) mod level;
pub(super) mod rates;
pub(super) mod toll;
mod tries;

pub(crate) mod guard;

pub(crate) use rates::{By, Rates};
pub(super) use toll::{Toll, settle};
pub(crate) use tries::{TokenTry, Tries};
