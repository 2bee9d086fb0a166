//! Connections of the public port: how they begin, and what ends those of callers who do not.

pub(super) mod activity;
mod patient;
mod peer;

pub(crate) mod server;

pub(crate) use patient::Patience;
