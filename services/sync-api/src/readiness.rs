//! Each tenant's dependencies in, the replica's readiness out.

use std::{sync::Arc, time::Duration};

use posduif_runtime::readiness::{Readiness, Status};
use tokio::{select, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{app::App, tenant::Tenant};

const INTERVAL: Duration = Duration::from_secs(5);
/// A dependency that takes longer is as good as away.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is wrong with a tenant's database and its log.
struct Findings {
    postgres: Option<String>,
    log: Option<String>,
}

/// Looks at every tenant again and again until the shutdown token is cancelled.
pub async fn watch(app: Arc<App>, readiness: Readiness, shutdown: CancellationToken) {
    loop {
        let looks = app.tenants().map(|tenant| look(&app, tenant));
        let findings = futures::future::join_all(looks).await;
        report(&app, &readiness, &findings);
        select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn look(app: &App, tenant: &Tenant) -> Findings {
    let silent = || format!("no answer within {} s", PATIENCE.as_secs());
    let (ping, state) =
        futures::join!(timeout(PATIENCE, tenant.database.ping()), timeout(PATIENCE, tenant.log.state()));
    let postgres = match ping {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(silent()),
    };
    let log = match state {
        Ok(Ok(Some(state))) if state.rules != *app.rules.hash() => {
            Some("the ingester runs with other rules (sync.tables) than this replica".to_owned())
        }
        Ok(Ok(Some(state))) if state.unready_below.is_some() => {
            Some("a new epoch waits for older transactions to end, snapshots are not served yet".to_owned())
        }
        Ok(Ok(Some(_))) => None,
        Ok(Ok(None)) => Some("there is no log yet; is the ingester running?".to_owned()),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(silent()),
    };
    Findings { postgres, log }
}

/// A replica that can serve one tenant stays in service for it: the others' trouble only degrades it.
fn report(app: &App, readiness: &Readiness, findings: &[Findings]) {
    let serves_someone = findings.iter().any(|found| found.postgres.is_none() && found.log.is_none());
    let status = |finding: &Option<String>| match (finding.clone(), serves_someone) {
        (None, _) => Status::Ready,
        (Some(reason), true) => Status::Degraded { reason },
        (Some(reason), false) => Status::NotReady { reason },
    };
    for (tenant, found) in app.tenants().zip(findings) {
        readiness.set(format!("{}/postgres", tenant.id), status(&found.postgres));
        readiness.set(format!("{}/log", tenant.id), status(&found.log));
    }
}
