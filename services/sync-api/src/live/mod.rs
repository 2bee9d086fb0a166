//! Movements of the log in, events on open connections out; what is missed here a sync brings all the same.

pub mod event;
pub mod parsed;

pub mod connection;

pub mod roster;
pub mod seats;

pub mod join;
mod news;
mod sharing;
mod touched;

mod tail;

pub mod presence;
mod recheck;

mod hints;

pub mod hub;

mod page;
pub mod stream;

pub use hub::{Caller, Hub, OpenError, Payload, Wish};
