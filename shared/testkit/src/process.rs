//! A program in, a running process that a test can break out; it ends with the test.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use posduif_provision::supervise::{Signal, Spec, Supervised};

use crate::logs;
use crate::scratch::Scratch;

/// What to run; see [`Process::command`].
pub struct Builder {
    spec: Spec,
    scratch: Scratch,
}

impl Builder {
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.spec = self.spec.arg(argument);
        self
    }

    pub fn args(self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.spec = self.spec.env(name, value);
        self
    }

    /// The working directory.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.spec = self.spec.directory(directory);
        self
    }

    pub fn spawn(self) -> Process {
        let process = Supervised::spawn(&self.spec).expect("starting the process");
        Process { process, spec: self.spec, _scratch: self.scratch }
    }
}

/// A process in a group of its own that ends when this value is dropped or the test process dies.
pub struct Process {
    process: Supervised,
    spec: Spec,
    _scratch: Scratch,
}

impl Process {
    /// A program to start, with the environment of the test.
    pub fn command(program: impl Into<PathBuf>) -> Builder {
        let (scratch, program) = (Scratch::new(), program.into());
        let log = program.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".log";
        // A dropped process is not waited for, so it is killed: nothing of it may reach into the next test.
        let mut spec = Spec::new(program, scratch.join(&log)).ends_by([Signal::Kill]);
        if logs::folder().is_some() {
            spec = spec.env(logs::LEVEL.0, logs::LEVEL.1);
        }
        Builder { spec, scratch }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What the process has written to standard output and standard error so far.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.spec.log()).expect("reading the log");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// SIGKILL; waits until the process is gone.
    pub async fn kill9(&mut self) {
        self.process.kill9().await.expect("a killed process ends");
    }

    /// Freezes the process, as a long garbage collection or a paused machine would.
    pub fn sigstop(&mut self) {
        self.process.signal(Signal::Stop);
    }

    pub fn sigcont(&mut self) {
        self.process.signal(Signal::Cont);
    }

    /// Sends a signal and does not wait.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// SIGTERM, and SIGKILL when the deadline comes first. Gives the exit status, 128 + n after signal n.
    pub async fn terminate(&mut self, deadline: Duration) -> i32 {
        self.process.stop(Signal::Term, deadline).await.expect("a killed process ends")
    }

    /// Waits for the process to end by itself; `None` when the deadline comes first.
    pub async fn wait(&mut self, deadline: Duration) -> Option<i32> {
        self.process.wait(deadline).await
    }

    /// The exit status, or `None` while it runs.
    pub fn try_wait(&mut self) -> Option<i32> {
        self.process.try_wait()
    }

    /// Starts the same program again, with the same arguments and log, after it has ended.
    pub fn start_again(&mut self) {
        assert!(self.try_wait().is_some(), "the process still runs");
        self.process = Supervised::spawn(&self.spec).expect("starting the process again");
    }
}

impl Drop for Process {
    /// The log goes with the process, so a test that fails shows it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of process {}:\n{}", self.pid(), self.log());
        }
    }
}
