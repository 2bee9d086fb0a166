//! One tenant's sessions, one after another while its lease is good, with pauses that grow while they fail.

use std::time::{Duration, Instant};

use posduif_runtime::backoff::Backoff;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    health,
    session::{Session, SessionError},
};

const SHORTEST: Duration = Duration::from_millis(200);
/// Short enough to be back within seconds of a dependency's return.
const LONGEST: Duration = Duration::from_secs(5);
/// A session that lasted this long was a success; the next failure begins with a short pause again.
const STABLE: Duration = Duration::from_secs(30);
/// What failed, where another machine may do better.
const ELSEWHERE: [&str; 2] = ["postgres", "replication"];

/// From now on this process works for the tenant.
pub fn begin(session: &Session) {
    session.readiness.not_ready(session.tenant.id.to_string(), "starting");
}

/// Keeps the tenant's log up to date until it is told to stop.
pub async fn serve(session: Session, stop: CancellationToken) {
    let tenant = session.tenant.id.clone();
    let component = tenant.to_string();
    let mut backoff = Backoff::new(SHORTEST, LONGEST);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = session.lease.held() => {}
        }
        let begun = Instant::now();
        let error = match run(&session, &stop).await {
            None => return,
            Some(Ok(())) => continue,
            Some(Err(error)) => error,
        };
        let word = error.word();
        let reason = format!("{:#}", anyhow::Error::new(error));
        session.readiness.not_ready(&component, &reason);
        health::forget_parts(&session.readiness, &component);
        let vitals = session.metrics.vitals(&tenant);
        vitals.follows(false);
        if ELSEWHERE.contains(&word) {
            vitals.fails(Instant::now());
        }
        session.metrics.failures.with_label_values(&[tenant.as_str(), word]).inc();
        if begun.elapsed() >= STABLE {
            backoff.reset();
        }
        let pause = backoff.next_pause(rand::random());
        tracing::warn!(%tenant, reason, ?pause, "the tenant's session ended; beginning another");
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// One session; `None` where it was told to stop.
///
/// It is a task of its own: a tenant whose session panics must not take the others along.
async fn run(session: &Session, stop: &CancellationToken) -> Option<Result<(), SessionError>> {
    let own = session.clone();
    let mut running = AbortOnDropHandle::new(tokio::spawn(async move { own.run().await }));
    tokio::select! {
        () = stop.cancelled() => {
            running.abort();
            // That it was aborted is no news.
            let _ = running.await;
            None
        }
        ended = &mut running => Some(ended.unwrap_or(Err(SessionError::Panicked))),
    }
}
