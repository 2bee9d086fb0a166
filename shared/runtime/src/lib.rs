//! The dull half of a service's main: configuration, telemetry, lifecycle, admin port, connections.

pub mod secret;

pub mod config;

pub mod backoff;
pub mod lifecycle;
pub mod metrics;
pub mod postgres;
pub mod readiness;
pub mod reload;
pub mod telemetry;

pub mod admin;
