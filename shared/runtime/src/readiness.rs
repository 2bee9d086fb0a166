//! What each dependency of a service says of itself in, one answer to "send it traffic?" out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

/// How one component is; reasons are for operators, they hold no secrets and no row values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    Ready,
    /// It works, but an operator should look: Redis without its append-only file.
    Degraded {
        reason: String,
    },
    NotReady {
        reason: String,
    },
}

/// The registry that every part of a service writes and the admin port reads; cheap to clone.
///
/// Components are named `redis` or `<tenant>/<part>`.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    components: Arc<Mutex<BTreeMap<String, Status>>>,
}

/// A moment's view of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub ready: bool,
    pub components: BTreeMap<String, Status>,
}

impl Readiness {
    /// Replaces what is known of a component.
    pub fn set(&self, component: impl Into<String>, status: Status) {
        self.components.lock().unwrap_or_else(PoisonError::into_inner).insert(component.into(), status);
    }

    pub fn ready(&self, component: impl Into<String>) {
        self.set(component, Status::Ready);
    }

    pub fn degraded(&self, component: impl Into<String>, reason: impl Into<String>) {
        self.set(component, Status::Degraded { reason: reason.into() });
    }

    pub fn not_ready(&self, component: impl Into<String>, reason: impl Into<String>) {
        self.set(component, Status::NotReady { reason: reason.into() });
    }

    /// Takes a component back that nobody looks at any more.
    pub fn forget(&self, component: &str) {
        self.components.lock().unwrap_or_else(PoisonError::into_inner).remove(component);
    }

    /// Ready is who has components none of which is not ready: a service that knows none is still starting.
    pub fn report(&self) -> Report {
        let components = self.components.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_ready = |status: &Status| !matches!(status, Status::NotReady { .. });
        Report { ready: !components.is_empty() && components.values().all(is_ready), components }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_component_that_is_not_ready_holds_back_the_service() {
        let readiness = Readiness::default();
        assert!(!readiness.report().ready, "a service that knows no component is starting");
        readiness.ready("redis");
        readiness.not_ready("tenant_1/postgres", "connection refused");
        assert!(!readiness.report().ready);
        readiness.degraded("tenant_1/postgres", "replica lags");
        assert!(readiness.report().ready);
    }

    #[test]
    fn the_report_tells_reasons() {
        let readiness = Readiness::default();
        readiness.not_ready("redis", "maxmemory-policy is not noeviction");
        let json = serde_json::to_string(&readiness.report()).unwrap();
        assert_eq!(
            json,
            r#"{"ready":false,"components":{"redis":{"status":"not_ready","reason":"maxmemory-policy is not noeviction"}}}"#
        );
    }
}
