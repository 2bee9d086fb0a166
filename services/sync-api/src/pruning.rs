//! Receipts, writers and tombstones that nobody asks for any more in, room in the tenants' databases out.

use std::time::Duration;

use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    store::{StoreError, row_versions, upload_receipts},
    tenant::Tenant,
};

/// How often each replica looks; rows that one is at are passed over by the others.
const INTERVAL: Duration = Duration::from_secs(600);
/// The rows of one statement: few enough that nobody waits for it.
const STEP: u16 = 1_000;
/// Between two statements, so that vacuum and replicas of the database keep up.
const PAUSE: Duration = Duration::from_millis(100);

/// Prunes every tenant again and again until the shutdown token is cancelled.
pub async fn prune(app: &App, shutdown: CancellationToken) {
    let work = async {
        loop {
            sleep(INTERVAL.mul_f64(0.5 + rand::random::<f64>())).await;
            let ids: Vec<_> = app.tenants().iter().map(|tenant| tenant.id.clone()).collect();
            // One after the other, so that none is kept that has gone meanwhile.
            for tenant in ids.iter().filter_map(|id| app.tenant(id)) {
                if let Err(error) = prune_tenant(&tenant).await {
                    tracing::warn!(tenant = %tenant.id, %error, "old receipts were not deleted; the next round tries again");
                }
            }
        }
    };
    select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}

/// Deletes what is too old, in small steps; how many rows.
pub async fn prune_tenant(tenant: &Tenant) -> Result<u64, StoreError> {
    let mut pruned = 0;
    loop {
        let step = tenant.database.run(async |client| {
            let receipts = upload_receipts::prune(client, STEP.into()).await?;
            Ok::<_, StoreError>(receipts + row_versions::prune(client, STEP.into()).await?)
        });
        let step = step.await?;
        pruned += step;
        if step < STEP.into() {
            return Ok(pruned);
        }
        sleep(PAUSE).await;
    }
}
