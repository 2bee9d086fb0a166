//! The tenants as they are configured now in, those that this replica serves out; a request asks without waiting.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use posduif_changelog::RedisPool;
use posduif_model::TenantId;
use posduif_runtime::{
    config::TenantConfig,
    postgres::{self, ConnectError, SessionLimits},
};

use crate::{store::Database, tenant::Tenant};

const APPLICATION_NAME: &str = "posduif-sync-api";

/// What tenants are made of.
pub struct Makings {
    pub redis: RedisPool,
    pub limits: SessionLimits,
    pub pool_size: usize,
    /// For one piece of work in a database.
    pub deadline: std::time::Duration,
}

/// The tenants of a replica.
pub struct Served {
    makings: Makings,
    tenants: ArcSwap<BTreeMap<TenantId, One>>,
}

#[derive(Clone)]
struct One {
    entry: TenantConfig,
    tenant: Arc<Tenant>,
}

/// What another list of tenants changes.
#[derive(Default)]
pub struct Change {
    pub added: Vec<Arc<Tenant>>,
    pub removed: Vec<Arc<Tenant>>,
    /// Tenants that cannot be reached as it is written; each stays as it was, or out.
    pub refused: Vec<(TenantId, ConnectError)>,
    next: BTreeMap<TenantId, One>,
}

impl Served {
    /// Serves nobody yet.
    pub fn new(makings: Makings) -> Self {
        Served { makings, tenants: ArcSwap::default() }
    }

    pub fn get(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.tenants.load().get(id).map(|one| one.tenant.clone())
    }

    pub fn all(&self) -> Vec<Arc<Tenant>> {
        self.tenants.load().values().map(|one| one.tenant.clone()).collect()
    }

    /// The tenant of callers that name none; `None` where there are several, or none.
    pub fn only(&self) -> Option<Arc<Tenant>> {
        let tenants = self.tenants.load();
        let mut all = tenants.values();
        all.next().filter(|_| all.next().is_none()).map(|one| one.tenant.clone())
    }

    /// What this list asks for. A tenant whose entry changed is reached by the new one from now on; who comes and who goes waits
    /// for [`Served::take_over`]. Nothing is connected yet.
    pub fn plan(&self, entries: &[TenantConfig]) -> Change {
        let before = self.tenants.load_full();
        let mut change = Change::default();
        for entry in entries {
            let known = before.get(&entry.id);
            let one = match known {
                Some(known) if known.entry == *entry => known.clone(),
                _ => match self.make(entry, known) {
                    Ok(made) => made,
                    Err(error) => {
                        change.refused.push((entry.id.clone(), error));
                        let Some(known) = known else { continue };
                        known.clone()
                    }
                },
            };
            if known.is_none() {
                change.added.push(one.tenant.clone());
            }
            change.next.insert(entry.id.clone(), one);
        }
        let gone = before.iter().filter(|(id, _)| !change.next.contains_key(*id));
        change.removed = gone.map(|(_, one)| one.tenant.clone()).collect();
        change
    }

    /// Serves what was planned; whoever asks from now on finds it.
    pub fn take_over(&self, change: &Change) {
        self.tenants.store(Arc::new(change.next.clone()));
    }

    /// A tenant that is reached in another way stays the tenant that it is: its open streams go on.
    fn make(&self, entry: &TenantConfig, known: Option<&One>) -> Result<One, ConnectError> {
        let Makings { redis, limits, pool_size, deadline } = &self.makings;
        let pool = postgres::pool(entry, APPLICATION_NAME, *pool_size, limits)?;
        let tenant = match known {
            Some(known) => {
                known.tenant.database.reach_by(pool);
                known.tenant.clone()
            }
            None => {
                let database = Database::new(pool, *deadline);
                Arc::new(Tenant::new(entry.id.clone(), database, redis.clone()))
            }
        };
        Ok(One { entry: entry.clone(), tenant })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn served() -> Served {
        let second = Duration::from_secs(1);
        let redis = posduif_changelog::pool("redis://127.0.0.1:1", 1, Default::default()).unwrap();
        let limits = SessionLimits { statement: second, lock: second, idle_in_transaction: second };
        Served::new(Makings { redis, limits, pool_size: 1, deadline: second })
    }

    fn entry(id: &str, password: &str) -> TenantConfig {
        let url = format!("postgres://u:{password}@127.0.0.1:1/{id}");
        TenantConfig::new(id.parse().unwrap(), url.parse().unwrap())
    }

    #[test]
    fn a_tenant_that_stays_is_the_same_and_one_alone_need_not_be_named() {
        let served = served();
        let adopt = |list: &[TenantConfig]| {
            let change = served.plan(list);
            served.take_over(&change);
            (change.added.len(), change.removed.len(), change.refused.len())
        };
        let a = || served.get(&"a".parse().unwrap());
        assert!(served.only().is_none() && served.all().is_empty());
        served.plan(&[entry("a", "x")]);
        assert!(a().is_none(), "a plan serves nobody");
        assert_eq!(adopt(&[entry("a", "x")]), (1, 0, 0));
        let first = served.only().unwrap();
        assert_eq!(adopt(&[entry("a", "another"), entry("b", "x")]), (1, 0, 0));
        assert!(served.only().is_none());
        assert!(Arc::ptr_eq(&first, &a().unwrap()));
        assert_eq!(adopt(&[entry("b", "x")]), (0, 1, 0));
        assert!(a().is_none());
        assert_eq!(Arc::strong_count(&first), 1, "nothing holds what is no longer served");
    }

    #[test]
    fn a_tenant_that_cannot_be_reached_as_written_is_told_and_the_others_are_served() {
        let served = served();
        let mut broken = entry("a", "x");
        broken.ca_file = Some("no/such/file.pem".into());
        let change = served.plan(&[broken, entry("b", "x")]);
        assert_eq!(change.refused.len(), 1);
        served.take_over(&change);
        assert_eq!(served.only().unwrap().id.as_str(), "b");
    }
}
