//! People and devices of a tenant: what they present, who they are, and how that ends at once and everywhere.
//!
//! The API serves them and the operator's tool manages them; both change a credential by the same steps.

pub mod password;
pub mod token;
pub mod username;

pub mod error;

pub mod account;
pub mod device;
pub mod invitation;
pub mod roster;
pub mod user;

pub mod caches;

pub mod disabling;
pub mod log_ins;
pub mod revocation;

pub use caches::Caches;
pub use error::AccountError;
