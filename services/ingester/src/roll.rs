//! The tenants as they are configured now in, a task for each of them out.

use std::collections::BTreeMap;

use posduif_model::TenantId;
use posduif_runtime::{config::TenantConfig, reload::Tenants};
use tokio::{select, sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{health, session::Session, tenant};

/// A tenant at work.
struct AtWork {
    entry: TenantConfig,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

/// Keeps a task for every tenant until the process drains; `session` is what a tenant's is made like.
pub async fn call(
    mut tenants: watch::Receiver<Tenants>,
    session: impl Fn(&TenantConfig) -> Session,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut at_work: BTreeMap<TenantId, AtWork> = BTreeMap::new();
    loop {
        let now = tenants.borrow_and_update().clone();
        let stays = |work: &AtWork| now.contains(&work.entry);
        let gone: Vec<TenantId> =
            at_work.iter().filter(|(_, work)| !stays(work)).map(|(id, _)| id.clone()).collect();
        for id in gone {
            let Some(work) = at_work.remove(&id) else { continue };
            work.stop.cancel();
            work.task.await??;
            let readiness = session(&work.entry).readiness;
            readiness.forget(id.as_str());
            health::forget_parts(&readiness, id.as_str());
        }
        for entry in now.iter() {
            at_work.entry(entry.id.clone()).or_insert_with(|| {
                let (session, stop) = (session(entry), shutdown.child_token());
                session.metrics.vitals(&entry.id);
                let task = tokio::spawn(tenant::serve(session, stop.clone()));
                AtWork { entry: entry.clone(), stop, task }
            });
        }
        select! {
            changed = tenants.changed() => if changed.is_err() { shutdown.cancelled().await },
            () = shutdown.cancelled() => {}
        }
        if shutdown.is_cancelled() {
            for work in at_work.into_values() {
                work.task.await??;
            }
            return Ok(());
        }
    }
}
