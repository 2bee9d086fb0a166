//! Answered requests in, counters and latencies by route out; never an id as a label.

pub mod live;

use std::time::Duration;

pub use live::LiveMetrics;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

const REQUESTS: &str = "posduif_api_requests_total";
const LIMITED: &str = "posduif_api_rate_limited_total";
const LATENCY: &str = "posduif_api_request_duration_seconds";

/// From a cache hit to a snapshot's wait.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Clone, Debug)]
pub struct RequestMetrics {
    requests: IntCounterVec,
    latency: HistogramVec,
    /// Requests that were refused with 429, by whose limit was reached.
    pub limited: IntCounterVec,
    pub live: LiveMetrics,
}

impl RequestMetrics {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let labels = ["method", "route", "status"];
        let requests =
            IntCounterVec::new(Opts::new(REQUESTS, "Requests answered on the public port."), &labels)?;
        let options = HistogramOpts::new(LATENCY, "Time until the head of the answer was ready, in seconds.");
        let latency = HistogramVec::new(options.buckets(BUCKETS.to_vec()), &labels)?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(latency.clone()))?;
        let limited = Opts::new(LIMITED, "Requests refused because their caller asks too much.");
        let limited = IntCounterVec::new(limited, &["by"])?;
        registry.register(Box::new(limited.clone()))?;
        Ok(RequestMetrics { requests, latency, limited, live: LiveMetrics::register(registry)? })
    }

    /// `route` is the pattern of a known route, not the path that was asked for.
    pub fn observe(&self, method: &str, route: &str, status: u16, took: Duration) {
        let labels = [method, route, &status.to_string()];
        self.requests.with_label_values(&labels).inc();
        self.latency.with_label_values(&labels).observe(took.as_secs_f64());
    }
}
