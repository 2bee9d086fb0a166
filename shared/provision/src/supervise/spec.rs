//! What to run and how to end it in, the command of the supervising shell out.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::signal::Signal;
use crate::user::ServerUser;

const WRAPPER: &str = include_str!("wrapper.sh");

/// What to run, and how to end it.
#[derive(Debug, Clone)]
pub struct Spec {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    log: PathBuf,
    user: Option<ServerUser>,
    ends_by: Vec<Signal>,
}

impl Spec {
    /// A program whose standard output and standard error are appended to `log`.
    pub fn new(program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            log: log.into(),
            user: None,
            ends_by: vec![Signal::Term, Signal::Kill],
        }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The working directory.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// The user to run as; only root can choose one.
    pub fn user(mut self, user: Option<ServerUser>) -> Self {
        self.user = user;
        self
    }

    /// The signals that end the process when its owner is gone, five seconds apart; TERM and KILL unless told.
    pub fn ends_by(mut self, signals: impl Into<Vec<Signal>>) -> Self {
        self.ends_by = signals.into();
        self
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    pub(super) fn command(&self) -> std::io::Result<Command> {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log)?;
        let signals: Vec<_> = self.ends_by.iter().map(|signal| signal.name()).collect();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WRAPPER, "posduif"]).arg(signals.join(" "));
        command.arg(&self.program).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).process_group(0);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if let Some(user) = &self.user {
            user.apply(&mut command);
        }
        Ok(command)
    }
}
