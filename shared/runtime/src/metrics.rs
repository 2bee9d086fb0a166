//! The process's counters and gauges in, Prometheus text out.

use prometheus::{Registry, TextEncoder};

/// The one registry of a process; each service registers its own metrics under names that it keeps as constants.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// A registry that already tells the process's CPU time, memory and open files, where the system does.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Metrics { registry })
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The text exposition format, version 0.0.4.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
