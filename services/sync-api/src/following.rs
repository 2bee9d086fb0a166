//! The list of tenants as it is now in, requests and live connections that go by it out.

use std::{sync::Arc, time::Duration};

use posduif_runtime::{readiness::Readiness, reload::Tenants};
use tokio::{select, sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{app::App, live::Hub, sightings};

/// How long a tenant that cannot be reached as it is written is left alone: a file may come that it names.
const AGAIN: Duration = Duration::from_secs(5);

/// Adds and removes tenants until the shutdown token is cancelled.
pub async fn follow(
    app: Arc<App>,
    hub: Arc<Hub>,
    mut tenants: watch::Receiver<Tenants>,
    readiness: Readiness,
    shutdown: CancellationToken,
) {
    let mut refused: Vec<String> = Vec::new();
    loop {
        select! {
            changed = tenants.changed() => if changed.is_err() { return shutdown.cancelled().await },
            () = sleep(AGAIN), if !refused.is_empty() => {}
            () = shutdown.cancelled() => return,
        }
        let now = tenants.borrow_and_update().clone();
        let change = app.served.plan(&now);
        // A new tenant can be listened to before it is found, and one that goes is not found before its streams end.
        hub.add(&change.added);
        app.served.take_over(&change);
        hub.remove(&change.removed);
        let mut told = Vec::new();
        for (tenant, error) in &change.refused {
            let reason = chain(error);
            let component = format!("{tenant}/configuration");
            if !refused.contains(&component) {
                tracing::error!(%tenant, reason, "the tenant cannot be served as it is configured");
            }
            readiness.degraded(&component, reason);
            told.push(component);
        }
        refused.iter().filter(|component| !told.contains(component)).for_each(|gone| readiness.forget(gone));
        refused = told;
        for tenant in change.removed {
            sightings::write_down_once(&tenant).await;
            tracing::info!(tenant = %tenant.id, "the tenant is no longer served");
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
