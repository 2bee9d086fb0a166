//! Leases granted and lost in, a task per tenant out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use posduif_model::TenantId;
use posduif_runtime::config::TenantConfig;
use tokio::{
    sync::watch,
    task::{Id, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{lease::Lease, session::Session, tenant};

/// Makes a tenant's session, which works under the lease.
pub type MakeSession = Box<dyn Fn(&TenantConfig, Lease) -> Session + Send + Sync>;

/// The tenants that this process works for.
pub struct Crew {
    session: MakeSession,
    until: watch::Sender<Option<Instant>>,
    at_work: BTreeMap<TenantId, AtWork>,
    tasks: JoinSet<()>,
}

struct AtWork {
    entry: TenantConfig,
    stop: CancellationToken,
    task: Id,
}

impl Crew {
    pub fn new(session: MakeSession) -> Self {
        let (until, _) = watch::channel(None);
        Crew { session, until, at_work: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// All leases are good until then.
    pub fn extend(&self, until: Instant) {
        self.until.send_replace(Some(until));
    }

    /// Begins to work for a tenant; nothing works for it yet.
    pub fn start(&mut self, entry: &TenantConfig) {
        let stop = CancellationToken::new();
        let session = (self.session)(entry, Lease::new(self.until.subscribe(), stop.clone()));
        // Its series and its place in the readiness begin now, so that nobody takes the process for idle.
        session.metrics.vitals(&entry.id);
        tenant::begin(&session);
        let task = self.tasks.spawn(tenant::serve(session, stop.clone())).id();
        self.at_work.insert(entry.id.clone(), AtWork { entry: entry.clone(), stop, task });
    }

    /// Tells a tenant's task to end; [`Crew::ended`] says when it has.
    pub fn stop(&self, tenant: &TenantId) {
        if let Some(work) = self.at_work.get(tenant) {
            work.stop.cancel();
        }
    }

    /// Waits for the next task that ends, told or not. For ever, where nothing works.
    pub async fn ended(&mut self) -> TenantId {
        loop {
            let ended = match self.tasks.join_next_with_id().await {
                Some(ended) => ended.map_or_else(|error| error.id(), |(id, ())| id),
                None => std::future::pending().await,
            };
            if let Some(tenant) = self.remove(ended) {
                return tenant;
            }
        }
    }

    /// Another one that has ended already.
    pub fn ended_too(&mut self) -> Option<TenantId> {
        let ended = self.tasks.try_join_next_with_id()?;
        self.remove(ended.map_or_else(|error| error.id(), |(id, ())| id))
    }

    fn remove(&mut self, task: Id) -> Option<TenantId> {
        let tenant = self.at_work.iter().find(|(_, work)| work.task == task)?.0.clone();
        self.at_work.remove(&tenant);
        Some(tenant)
    }

    /// Tells all to end and waits until they have.
    pub async fn end(&mut self) {
        self.at_work.values().for_each(|work| work.stop.cancel());
        while self.tasks.join_next().await.is_some() {}
        self.at_work.clear();
    }

    /// Those for which something runs as they are configured, told to end or not.
    pub fn running(&self) -> BTreeSet<TenantId> {
        self.at_work.keys().cloned().collect()
    }

    pub fn ending(&self) -> BTreeSet<TenantId> {
        let ends = self.at_work.iter().filter(|(_, work)| work.stop.is_cancelled());
        ends.map(|(tenant, _)| tenant.clone()).collect()
    }

    /// Those whose entry of the configuration is not among these any more.
    pub fn outdated(&self, entries: &[TenantConfig]) -> Vec<TenantId> {
        let outdated = self.at_work.iter().filter(|(_, work)| !entries.contains(&work.entry));
        outdated.map(|(tenant, _)| tenant.clone()).collect()
    }
}
