//! Hints of the server, wishes of the application and local writes in, syncs at the right moments out.
//!
//! [`life`] decides, [`mod@run`] does; the other modules are its senses.

mod backoff;
mod event;
mod life;
mod outlook;
mod run;
mod sse;
mod status;
mod stream;
mod wishes;

pub(crate) use run::run;
pub use status::{Problem, State, Status, StatusChanges};
pub(crate) use wishes::Wishes;
