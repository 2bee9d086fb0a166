//! The sync API: devices and web users in, PostgreSQL and the log of changes behind it; replicas keep no state.

pub mod clock;
pub mod code;
pub mod metrics;

pub mod content;
pub mod credential;
pub mod declaration;

pub mod store;

pub mod sightings;
pub mod tenant;
pub mod turns;

pub mod served;

pub mod certificate;

pub mod app;

pub mod account_change;
pub mod accounts;
pub mod enrollment;
pub mod sync;

pub mod live;

mod http;
pub use http::document;

mod following;
pub mod pruning;
mod readiness;
pub mod service;
