//! Everything that can keep a server from running, as one sentence that says what to do.

use std::io;
use std::path::PathBuf;

/// Why a server cannot be had. None of these heals by itself: show the sentence to the person and stop.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// A server that was named explicitly cannot be used; nothing else is tried, so that no other server is
    /// run by mistake.
    #[error("{name} was asked for at {path} by {by}, but {problem}: correct that path or leave it out")]
    Named { name: &'static str, path: PathBuf, by: String, problem: String },

    /// The machine has no usable server and none could be fetched.
    #[error(
        "no {name} {minimum} or newer was found ({passed_over}) and none could be fetched ({tried}): install it, or set {variable}"
    )]
    Unavailable {
        name: &'static str,
        minimum: String,
        passed_over: String,
        tried: String,
        variable: &'static str,
    },

    /// The port that was asked for belongs to another program.
    #[error(
        "port {port} on 127.0.0.1 is already in use: stop the program that uses it or choose another port"
    )]
    PortTaken { port: u16 },

    /// A directory cannot hold the data or the fetched programs.
    #[error("{path} cannot be used: {problem}")]
    Directory { path: PathBuf, problem: String },

    /// The server was started and ended, or did not answer in time.
    #[error("{name} did not start: {detail}; its log is {log}")]
    Start { name: &'static str, detail: String, log: PathBuf },

    /// The server did not end although it was killed.
    #[error("{name} (process {pid}) did not stop: end it by hand")]
    Stop { name: &'static str, pid: u32 },

    /// The operating system refused something else.
    #[error("{doing} failed: {source}")]
    Io { doing: String, source: io::Error },
}

/// Names what was being done when the operating system said no.
pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> ProvisionError {
    let doing = doing.into();
    move |source| ProvisionError::Io { doing, source }
}
