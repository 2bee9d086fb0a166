//! Requests in, answers of the contract out.

mod error;
mod error_body;

mod auth;
pub(crate) mod cors;
pub(crate) mod extract;
mod hardening;
pub(crate) mod limits;
pub(crate) mod rate;
pub(crate) mod request;
pub(crate) mod wire;
mod written;

mod devices;
mod disabling;
pub(crate) mod docs;
mod enrollment;
mod health;
mod instructions;
mod login;
mod messages;
mod sse;
mod sync;
mod users;

pub mod document;
mod route;
pub(crate) mod routes;
