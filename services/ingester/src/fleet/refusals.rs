//! How long tenants have failed here in, which of them another ingester should try out; no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use posduif_model::TenantId;

/// A tenant whose database cannot be used for so long may be another ingester's to reach.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long it is left to others; then it must be reachable from here before this ingester offers to work for it again.
const HOLD_OFF: Duration = Duration::from_secs(300);

/// The tenants that this process would rather not work for.
#[derive(Debug, Default)]
pub struct Refusals {
    until: BTreeMap<TenantId, Instant>,
}

impl Refusals {
    /// A tenant has failed for so long; refused, where it was long enough and somebody else would have it.
    pub fn fails(&mut self, tenant: &TenantId, failing: Duration, others: bool, now: Instant) -> bool {
        let refuses = others && failing >= PATIENCE && !self.until.contains_key(tenant);
        if refuses {
            self.until.insert(tenant.clone(), now + HOLD_OFF);
        }
        refuses
    }

    /// Those that should be tried: their time is over. Tried again later, unless they are accepted meanwhile.
    pub fn due(&mut self, now: Instant) -> Vec<TenantId> {
        let due = self.until.iter_mut().filter(|(_, until)| **until <= now);
        due.map(|(tenant, until)| {
            *until = now + HOLD_OFF;
            tenant.clone()
        })
        .collect()
    }

    /// It can be reached again.
    pub fn accept(&mut self, tenant: &TenantId) {
        self.until.remove(tenant);
    }

    /// Forgets tenants that are gone.
    pub fn keep(&mut self, known: &BTreeSet<TenantId>) {
        self.until.retain(|tenant, _| known.contains(tenant));
    }

    pub fn set(&self) -> BTreeSet<TenantId> {
        self.until.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_refused_after_a_while_if_others_would_have_it_and_tried_again_later() {
        let tenant: TenantId = "t".parse().unwrap();
        let (start, mut refusals) = (Instant::now(), Refusals::default());
        assert!(!refusals.fails(&tenant, PATIENCE - Duration::from_millis(1), true, start));
        assert!(!refusals.fails(&tenant, PATIENCE, false, start), "nobody else would have it");
        assert!(refusals.fails(&tenant, PATIENCE, true, start));
        assert!(!refusals.fails(&tenant, PATIENCE, true, start), "it is refused already");
        assert_eq!(refusals.set(), BTreeSet::from([tenant.clone()]));
        assert!(refusals.due(start + HOLD_OFF - Duration::from_secs(1)).is_empty());
        assert_eq!(refusals.due(start + HOLD_OFF), std::slice::from_ref(&tenant));
        assert!(refusals.due(start + HOLD_OFF).is_empty(), "one try at a time");
        refusals.accept(&tenant);
        assert!(refusals.set().is_empty());
    }
}
