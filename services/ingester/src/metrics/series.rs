//! A tenant in, no series of it left out.

use std::collections::HashMap;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};

/// Removes every series that has this tenant as its label.
pub fn forget<B: MetricVecBuilder>(family: &MetricVec<B>, tenant: &str) {
    for metric in family.collect().iter().flat_map(|family| family.get_metric()) {
        let labels: HashMap<&str, &str> =
            metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
        if labels.get("tenant") == Some(&tenant) {
            // It fails where somebody else was faster.
            let _ = family.remove(&labels);
        }
    }
}
