//! A condition in, its fulfilment or a panic that says what was missing out: instead of sleeping in tests.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep, timeout_at};

const POLL: Duration = Duration::from_millis(20);

/// Repeats `attempt`, which may borrow what it needs mutably, until it gives a value. Panics with `what` and the last error when the deadline comes first.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<Option<T>>,
) -> T {
    let give_up = Instant::now() + deadline;
    let mut last = "it never came to an answer".to_owned();
    loop {
        match timeout_at(give_up, attempt()).await {
            Ok(Ok(Some(value))) => return value,
            Ok(Ok(None)) => last = "no error".to_owned(),
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => {}
        }
        assert!(Instant::now() < give_up, "not within {deadline:?}: {what} (last: {last})");
        sleep(POLL).await;
    }
}

/// [`eventually`] for a condition without a value.
pub async fn eventually_true(deadline: Duration, what: &str, mut attempt: impl AsyncFnMut() -> Result<bool>) {
    eventually(deadline, what, async || Ok(attempt().await?.then_some(()))).await;
}
