//! What live connections do in, gauges and counters out.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

const CONNECTIONS: &str = "posduif_api_sse_connections";
const EVENTS: &str = "posduif_api_sse_events_total";
const OVERFLOWS: &str = "posduif_api_sse_overflows_total";
const REFUSED: &str = "posduif_api_sse_refused_total";
const ENDED: &str = "posduif_api_sse_ended_total";
const WAKE_UPS: &str = "posduif_api_sse_wake_ups_total";
const PRESENCE: &str = "posduif_api_presence_changes_total";

#[derive(Clone, Debug)]
pub struct LiveMetrics {
    /// Open now, by `kind`: `mobile` or `web`.
    pub connections: IntGaugeVec,
    /// By the event's name.
    pub events: IntCounterVec,
    /// Times that a reader's buffer was full.
    pub overflows: IntCounter,
    /// By the limit that was reached, or `draining`.
    pub refused: IntCounterVec,
    /// Ended by the server, by reason.
    pub ended: IntCounterVec,
    /// Looks at a tenant's log, by what made them: `hint`, `look` or `join`.
    pub wake_ups: IntCounterVec,
    /// Written to PostgreSQL, by `to`: `online` or `offline`.
    pub presence: IntCounterVec,
}

impl LiveMetrics {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let connections = Opts::new(CONNECTIONS, "Live connections that are open.");
        let connections = IntGaugeVec::new(connections, &["kind"])?;
        registry.register(Box::new(connections.clone()))?;
        let overflows = IntCounter::new(OVERFLOWS, "Times that a slow reader's events became one hint.")?;
        registry.register(Box::new(overflows.clone()))?;
        Ok(LiveMetrics {
            connections,
            overflows,
            events: counters(EVENTS, "Events sent on live connections.", "event")?,
            refused: counters(REFUSED, "Live connections that were refused.", "reason")?,
            ended: counters(ENDED, "Live connections that the server ended.", "reason")?,
            wake_ups: counters(WAKE_UPS, "Looks at a tenant's log for live connections.", "by")?,
            presence: counters(PRESENCE, "Users whose online status was changed.", "to")?,
        })
    }
}
