//! Signals and dying tasks in, one orderly end of the process out.

use std::{
    any::Any, borrow::Cow, future::Future, panic::AssertUnwindSafe, process::ExitCode, time::Duration,
};

use futures::FutureExt;
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What dropped tasks have to close their connections in, once draining is given up.
const ABORT_GRACE: Duration = Duration::from_millis(500);

/// Owns the process's tasks and its end.
///
/// The first SIGTERM or SIGINT cancels the shutdown token and waits for the tasks, the second drops them.
pub struct Lifecycle {
    tasks: Tasks,
    deaths: mpsc::UnboundedReceiver<()>,
    drain_deadline: Duration,
}

/// Spawns tasks that the process depends on; cheap to clone and to hand down.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    abort: CancellationToken,
    deaths: mpsc::UnboundedSender<()>,
}

#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Drained,
    /// A task died; the others were drained.
    Failed,
    /// A second signal came or the deadline passed; tasks were dropped.
    Aborted,
}

impl Tasks {
    /// Runs a task that lasts until the shutdown token is cancelled.
    ///
    /// If it ends earlier, by an error, a panic or without any, the process drains and exits non-zero.
    pub fn spawn<F>(&self, name: impl Into<Cow<'static, str>>, future: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (name, tasks) = (name.into(), self.clone());
        self.tracker.spawn(async move {
            let outcome = select! {
                biased;
                () = tasks.abort.cancelled() => return,
                outcome = AssertUnwindSafe(future).catch_unwind() => outcome,
            };
            let reason = match outcome {
                Ok(Ok(())) if tasks.shutdown.is_cancelled() => return,
                Ok(Ok(())) => "it ended although nothing asked it to".to_owned(),
                Ok(Err(error)) => format!("{error:#}"),
                Err(panic) => format!("it panicked: {}", panic_text(&*panic)),
            };
            tracing::error!(task = %name, %reason, "a task died, the process stops");
            // The receiver is gone only when the process has stopped waiting for tasks.
            let _ = tasks.deaths.send(());
        });
    }

    /// Cancelled when the process shall drain; cancelling it asks for that.
    pub fn shutdown_token(&self) -> CancellationToken {
        self.shutdown.clone()
    }
}

impl Lifecycle {
    /// `drain_deadline` is how long tasks may take to end after the shutdown token is cancelled.
    pub fn new(drain_deadline: Duration) -> Self {
        let (sender, deaths) = mpsc::unbounded_channel();
        let (shutdown, abort) = (CancellationToken::new(), CancellationToken::new());
        let tasks = Tasks { tracker: TaskTracker::new(), shutdown, abort, deaths: sender };
        Lifecycle { tasks, deaths, drain_deadline }
    }

    /// See [`Tasks::spawn`].
    pub fn spawn<F>(&self, name: impl Into<Cow<'static, str>>, future: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.tasks.spawn(name, future);
    }

    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// See [`Tasks::shutdown_token`].
    pub fn shutdown_token(&self) -> CancellationToken {
        self.tasks.shutdown_token()
    }

    /// Waits for a signal, a dying task or the shutdown token, then for the tasks.
    ///
    /// Where tasks had to be dropped it ends the process itself: the runtime would wait for blocking threads.
    pub async fn run_until_shutdown(self) -> ExitCode {
        let signals = signal(SignalKind::terminate()).and_then(|t| Ok((t, signal(SignalKind::interrupt())?)));
        let (mut terminate, mut interrupt) = match signals {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "cannot listen for signals");
                return ExitCode::FAILURE;
            }
        };
        let next_signal =
            async || select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        match self.run(next_signal).await {
            Ending::Drained => ExitCode::SUCCESS,
            Ending::Failed => ExitCode::FAILURE,
            Ending::Aborted => std::process::exit(1),
        }
    }

    async fn run(mut self, mut next_signal: impl AsyncFnMut() -> &'static str) -> Ending {
        let mut failed = select! {
            signal = next_signal() => {
                tracing::info!(signal, "draining");
                false
            }
            () = self.tasks.shutdown.cancelled() => {
                tracing::info!("draining");
                false
            }
            _ = self.deaths.recv() => true,
        };
        self.tasks.shutdown.cancel();
        self.tasks.tracker.close();
        let drained = select! {
            () = self.tasks.tracker.wait() => true,
            signal = next_signal() => {
                tracing::warn!(signal, "second signal, stopping at once");
                false
            }
            () = sleep(self.drain_deadline) => {
                let tasks = self.tasks.tracker.len();
                tracing::error!(tasks, deadline = ?self.drain_deadline, "tasks did not end in time");
                false
            }
        };
        if !drained {
            self.tasks.abort.cancel();
            let _ = timeout(ABORT_GRACE, self.tasks.tracker.wait()).await;
            return Ending::Aborted;
        }
        failed |= self.deaths.try_recv().is_ok();
        if failed { Ending::Failed } else { Ending::Drained }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use super::*;

    fn lifecycle() -> Lifecycle {
        Lifecycle::new(Duration::from_secs(10))
    }

    async fn silence() -> &'static str {
        pending().await
    }

    /// A task as services write them: it ends when it is asked to.
    fn spawn_well_behaved(lifecycle: &Lifecycle) {
        let shutdown = lifecycle.shutdown_token();
        lifecycle.spawn("well-behaved", async move {
            shutdown.cancelled().await;
            Ok(())
        });
    }

    #[tokio::test]
    async fn a_signal_drains_the_tasks_and_succeeds() {
        let lifecycle = lifecycle();
        spawn_well_behaved(&lifecycle);
        let mut signals = vec!["SIGTERM"];
        let ending = lifecycle.run(async || match signals.pop() {
            Some(signal) => signal,
            None => silence().await,
        });
        assert_eq!(ending.await, Ending::Drained);
    }

    /// The runtime has one thread: the task runs once `run_until_shutdown` waits, its handlers in place.
    #[tokio::test]
    async fn the_operating_systems_sigterm_is_heard() {
        let lifecycle = lifecycle();
        let shutdown = lifecycle.shutdown_token();
        lifecycle.spawn("signalling", async move {
            let pid = std::process::id().to_string();
            tokio::process::Command::new("kill").args(["-TERM", &pid]).status().await?;
            shutdown.cancelled().await;
            Ok(())
        });
        let code = lifecycle.run_until_shutdown().await;
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    }

    #[tokio::test]
    async fn the_shutdown_token_drains_too() {
        let lifecycle = lifecycle();
        spawn_well_behaved(&lifecycle);
        lifecycle.shutdown_token().cancel();
        assert_eq!(lifecycle.run(silence).await, Ending::Drained);
    }

    #[tokio::test]
    async fn a_failing_task_takes_the_process_down() {
        let lifecycle = lifecycle();
        spawn_well_behaved(&lifecycle);
        lifecycle.spawn("failing", async { Err(anyhow::anyhow!("no more disk")) });
        assert_eq!(lifecycle.run(silence).await, Ending::Failed);
    }

    #[tokio::test]
    async fn a_panicking_task_takes_the_process_down() {
        let lifecycle = lifecycle();
        spawn_well_behaved(&lifecycle);
        lifecycle.spawn("panicking", async { panic!("unforeseen") });
        assert_eq!(lifecycle.run(silence).await, Ending::Failed);
    }

    #[tokio::test]
    async fn a_task_that_ends_unasked_takes_the_process_down() {
        let lifecycle = lifecycle();
        lifecycle.tasks().spawn("tired", async { Ok(()) });
        assert_eq!(lifecycle.run(silence).await, Ending::Failed);
    }

    #[tokio::test]
    async fn a_task_that_fails_while_draining_is_not_forgotten() {
        let lifecycle = lifecycle();
        let shutdown = lifecycle.shutdown_token();
        lifecycle.spawn("late", async move {
            shutdown.cancelled().await;
            Err(anyhow::anyhow!("lost the last batch"))
        });
        lifecycle.shutdown_token().cancel();
        assert_eq!(lifecycle.run(silence).await, Ending::Failed);
    }

    #[tokio::test]
    async fn a_second_signal_drops_the_tasks_at_once() {
        let lifecycle = lifecycle();
        let held = Arc::new(());
        let witness = held.clone();
        lifecycle.spawn("stubborn", async move {
            let _witness = witness;
            pending().await
        });
        assert_eq!(lifecycle.run(async || "SIGINT").await, Ending::Aborted);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_do_not_drain_in_time_are_dropped() {
        let lifecycle = lifecycle();
        lifecycle.spawn("stubborn", pending());
        lifecycle.shutdown_token().cancel();
        assert_eq!(lifecycle.run(silence).await, Ending::Aborted);
    }
}
