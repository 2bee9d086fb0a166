//! Each tenant's dependencies in, the replica's readiness out.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use posduif_runtime::readiness::{Readiness, Status};
use tokio::{select, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    declaration::check_shape,
    store::{StoreError, catalogue},
    tenant::Tenant,
};

const INTERVAL: Duration = Duration::from_secs(5);
/// A dependency that takes longer is as good as away.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is wrong with a tenant's database, its synced tables and its log.
struct Findings {
    postgres: Option<String>,
    tables: Option<String>,
    log: Option<String>,
}

impl Findings {
    fn is_empty(&self) -> bool {
        self.postgres.is_none() && self.tables.is_none() && self.log.is_none()
    }
}

/// Looks at every tenant again and again until the shutdown token is cancelled.
pub async fn watch(app: Arc<App>, readiness: Readiness, shutdown: CancellationToken) {
    let mut told = BTreeSet::new();
    loop {
        let tenants = app.tenants();
        let looks = tenants.iter().map(|tenant| look(&app, tenant));
        let findings = futures::future::join_all(looks).await;
        let now = report(&tenants, &readiness, &findings);
        told.difference(&now).for_each(|component: &String| readiness.forget(component));
        told = now;
        // Nobody is kept longer than the look.
        drop(tenants);
        select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn look(app: &App, tenant: &Tenant) -> Findings {
    let silent = || format!("no answer within {} s", PATIENCE.as_secs());
    let (tables, state) =
        futures::join!(timeout(PATIENCE, tables(app, tenant)), timeout(PATIENCE, tenant.log.state()));
    if let Ok(Ok(Some(state))) = &state {
        tenant.database.follow(state);
    }
    let (postgres, tables) = match tables {
        Ok(Ok(misfit)) => (None, misfit),
        Ok(Err(error)) => (Some(error.to_string()), None),
        Err(_) => (Some(silent()), None),
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
    Findings { postgres, tables, log }
}

/// The first declaration that the tenant's tables do not fit, as a sentence.
async fn tables(app: &App, tenant: &Tenant) -> Result<Option<String>, StoreError> {
    let declared = app.rules.tables();
    let shapes = tenant.database.run(async |client| {
        catalogue::shapes(client, declared.iter().map(|declaration| &declaration.table)).await
    });
    let shapes = shapes.await?;
    let fits = declared.iter().filter_map(|declaration| {
        shapes.get(&declaration.table).map(|shape| check_shape(declaration, shape))
    });
    Ok(fits.filter_map(Result::err).next().map(|unusable| unusable.to_string()))
}

/// A replica that can serve one tenant stays in service for it: the others' trouble only degrades it. Returns what was told of.
fn report(tenants: &[Arc<Tenant>], readiness: &Readiness, findings: &[Findings]) -> BTreeSet<String> {
    let serves_someone = findings.iter().any(Findings::is_empty);
    let status = |finding: &Option<String>| match (finding.clone(), serves_someone) {
        (None, _) => Status::Ready,
        (Some(reason), true) => Status::Degraded { reason },
        (Some(reason), false) => Status::NotReady { reason },
    };
    let mut told = BTreeSet::new();
    for (tenant, found) in tenants.iter().zip(findings) {
        for (part, finding) in [("postgres", &found.postgres), ("tables", &found.tables), ("log", &found.log)]
        {
            let component = format!("{}/{part}", tenant.id);
            readiness.set(&component, status(finding));
            told.insert(component);
        }
    }
    told
}
