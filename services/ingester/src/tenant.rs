//! One tenant's sessions, one after another, with pauses that grow while they fail.

use std::time::{Duration, Instant};

use posduif_runtime::backoff::Backoff;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{health, session::Session};

const SHORTEST: Duration = Duration::from_millis(200);
/// Short enough to be back within seconds of a dependency's return.
const LONGEST: Duration = Duration::from_secs(5);
/// A session that lasted this long was a success; the next failure begins with a short pause again.
const STABLE: Duration = Duration::from_secs(30);

/// Keeps the tenant's log up to date until the process drains.
pub async fn serve(session: Session, shutdown: CancellationToken) -> anyhow::Result<()> {
    let tenant = session.tenant.id.clone();
    let component = tenant.to_string();
    session.readiness.not_ready(&component, "starting");
    let mut backoff = Backoff::new(SHORTEST, LONGEST);
    loop {
        let begun = Instant::now();
        let (word, error) = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            ended = session.run() => match ended {
                Ok(()) => continue,
                Err(error) => (error.word(), anyhow::Error::new(error)),
            },
        };
        let reason = format!("{error:#}");
        session.readiness.not_ready(&component, &reason);
        health::forget_parts(&session.readiness, &component);
        session.metrics.vitals(&tenant).follows(false);
        session.metrics.failures.with_label_values(&[tenant.as_str(), word]).inc();
        if begun.elapsed() >= STABLE {
            backoff.reset();
        }
        let pause = backoff.next_pause(rand::random());
        tracing::warn!(%tenant, reason, ?pause, "the tenant's session ended; beginning another");
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = sleep(pause) => {}
        }
    }
}
