//! What an ingester knows of the others in, gauges out.

use prometheus::{IntGauge, Registry};

use super::names;

/// This ingester's place among the others.
#[derive(Clone, Debug)]
pub struct FleetMetrics {
    /// Ingesters that live, as this one knows.
    pub members: IntGauge,
    /// Tenants of the configuration.
    pub known: IntGauge,
    /// Tenants that this one works for.
    pub held: IntGauge,
    /// Tenants of the configuration that no ingester works for.
    pub unheld: IntGauge,
}

impl FleetMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(FleetMetrics {
            members: gauge(names::MEMBERS, "Ingesters that live, as this one knows.")?,
            known: gauge(names::KNOWN, "Tenants of this ingester's configuration.")?,
            held: gauge(names::HELD, "Tenants that this ingester works for.")?,
            unheld: gauge(names::UNHELD, "Tenants of its configuration that no ingester works for.")?,
        })
    }
}
