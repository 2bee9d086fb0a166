//! A command in, a process out that never outlives its owner, not even one that is killed with SIGKILL.
//!
//! The process runs under a small `sh` that holds the reading end of a pipe. The owner holds the writing end, so
//! the kernel tells the shell when the owner is gone, however it went. Both live in a process group of their own:
//! Ctrl-C in a terminal reaches the owner only, which then decides in which order to stop things.

mod signal;
mod spec;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin};
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use tokio::time::{Instant, sleep};

pub use crate::user::ServerUser;
pub use signal::Signal;
pub use spec::Spec;

const POLL: Duration = Duration::from_millis(10);

/// A process that ends with its owner. Dropping this tells it to end and does not wait; see [`Supervised::stop`].
#[derive(Debug)]
pub struct Supervised {
    wrapper: Option<Child>,
    pipe: Option<ChildStdin>,
    process: Pid,
    ended: Option<i32>,
}

impl Supervised {
    /// Starts the process; comes back within milliseconds, before the process is ready for anything.
    ///
    /// # Errors
    /// The log cannot be opened or the shell cannot be run. A program that is missing ends with status 127.
    pub fn spawn(spec: &Spec) -> std::io::Result<Self> {
        let mut wrapper = spec.command()?.spawn()?;
        let pipe = wrapper.stdin.take();
        let mut line = String::new();
        if let Some(output) = wrapper.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let process = line.trim().parse().ok().and_then(Pid::from_raw);
        let process = process.ok_or_else(|| std::io::Error::other("the supervising shell did not start"))?;
        Ok(Self { wrapper: Some(wrapper), pipe, process, ended: None })
    }

    /// The id of the process itself, not of the shell above it.
    pub fn pid(&self) -> u32 {
        self.process.as_raw_nonzero().get().unsigned_abs()
    }

    /// The exit status once the process has ended; 128 + n when signal n ended it.
    pub fn try_wait(&mut self) -> Option<i32> {
        if let Some(wrapper) = &mut self.wrapper
            && let Ok(Some(status)) = wrapper.try_wait()
        {
            self.ended = Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
            self.wrapper = None;
            self.pipe = None;
        }
        self.ended
    }

    /// Waits for the process to end by itself; `None` when the deadline comes first.
    pub async fn wait(&mut self, deadline: Duration) -> Option<i32> {
        let give_up = Instant::now() + deadline;
        loop {
            let status = self.try_wait();
            if status.is_some() || Instant::now() >= give_up {
                return status;
            }
            sleep(POLL).await;
        }
    }

    /// Sends a signal; does nothing to a process that has ended.
    pub fn signal(&mut self, signal: Signal) {
        // While the shell lives the process is its child, so the id cannot have gone to another process.
        if self.try_wait().is_none() {
            // It may end at this very moment, and that is what a signal to an ended process means.
            let _ = kill_process(self.process, signal.native());
        }
    }

    /// Sends the signal and waits; kills the process when the deadline comes first. Gives the exit status, or
    /// `None` for a process that even SIGKILL did not end.
    pub async fn stop(&mut self, signal: Signal, deadline: Duration) -> Option<i32> {
        self.signal(signal);
        match self.wait(deadline).await {
            Some(status) => Some(status),
            None => self.kill9().await,
        }
    }

    /// SIGKILL, as a crash would be; waits until the process is gone.
    pub async fn kill9(&mut self) -> Option<i32> {
        self.signal(Signal::Kill);
        self.wait(Duration::from_secs(10)).await
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.pipe = None;
        if self.try_wait().is_none()
            && let Some(mut wrapper) = self.wrapper.take()
        {
            // Without a parent that waits, the shell would stay behind as a zombie for as long as the owner lives.
            std::thread::spawn(move || wrapper.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn shell(folder: &tempfile::TempDir, script: &str) -> Spec {
        Spec::new("/bin/sh", folder.path().join("log")).arg("-c").arg(script)
    }

    fn alive(pid: u32) -> bool {
        Pid::from_raw(pid.cast_signed()).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
    }

    #[tokio::test]
    async fn the_status_and_the_output_of_a_process_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let spec = shell(&folder, "echo said; echo complained >&2; exit 3");
        let mut process = Supervised::spawn(&spec).unwrap();
        assert_eq!(process.wait(10 * SECOND).await, Some(3));
        assert_eq!(std::fs::read_to_string(spec.log()).unwrap(), "said\ncomplained\n");
    }

    #[tokio::test]
    async fn a_process_that_ignores_the_signal_is_killed_at_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let spec = shell(&folder, "trap '' TERM; echo ready; while :; do sleep 0.1; done");
        let mut process = Supervised::spawn(&spec).unwrap();
        while std::fs::read_to_string(spec.log()).unwrap().is_empty() {
            sleep(POLL).await;
        }
        assert_eq!(process.stop(Signal::Term, SECOND / 5).await, Some(128 + 9));
    }

    #[tokio::test]
    async fn a_dropped_process_ends() {
        let folder = tempfile::tempdir().unwrap();
        let process = Supervised::spawn(&shell(&folder, "exec sleep 1000")).unwrap();
        let pid = process.pid();
        assert!(alive(pid));
        drop(process);
        let give_up = Instant::now() + 10 * SECOND;
        while alive(pid) {
            assert!(Instant::now() < give_up, "the process outlived its owner");
            sleep(POLL).await;
        }
    }

    #[tokio::test]
    async fn a_missing_program_ends_with_status_127() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Supervised::spawn(&Spec::new("/nowhere/x", folder.path().join("log"))).unwrap();
        assert_eq!(process.wait(10 * SECOND).await, Some(127));
    }
}
