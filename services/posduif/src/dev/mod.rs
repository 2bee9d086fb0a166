//! `posduif dev`: an empty machine in, a whole installation with a demo tenant out, and nothing left when it ends.
//!
//! One process, the supervisor, owns both servers and both services; whatever happens to it, they end with it.

mod banner;
mod command;
mod configuration;
mod folder;
mod programs;
mod running;
mod services;
mod settings;
mod supervisor;
mod tenant;

pub use command::{DevArguments, run};
