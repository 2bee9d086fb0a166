//! Every tenant's vitals in, gauges as of the scrape out: an age grows although nobody reports it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use posduif_model::Lsn;
use prometheus::{
    GaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{Tenants, names};
use crate::vitals::Readings;

/// The states of a slot's WAL (manual 53.20, `wal_status`).
const WAL_STATES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];

/// What a gauge reads; `None` where it is not known, which is no series.
type Read = fn(&Readings) -> Option<f64>;

/// The gauges that are read, not set.
pub struct Live {
    tenants: Arc<Mutex<Tenants>>,
    following: GaugeVec,
    gauges: Vec<(GaugeVec, Read)>,
    wal_status: GaugeVec,
}

impl Live {
    pub fn new(tenants: Arc<Mutex<Tenants>>) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| GaugeVec::new(Opts::new(name, help), &["tenant"]);
        let table: [(&str, &str, Read); 15] = [
            (names::PAUSED, "1 while an operator has the tenant left alone.", |r| Some(f64::from(r.paused))),
            (names::HEARTBEAT_LAG, "Age of the newest heartbeat that readers may see.", |r| {
                r.heartbeat_lag.map(|lag| lag.as_secs_f64())
            }),
            (names::WATERMARK_AGE, "Time since the watermark moved.", |r| {
                Some(r.watermark_age.as_secs_f64())
            }),
            (names::WATERMARK, "WAL position up to which readers may see changes.", |r| {
                Some(bytes(r.watermark?))
            }),
            (names::CONFIRMED, "WAL position confirmed to PostgreSQL.", |r| Some(bytes(r.confirmed?))),
            (names::LAG_BYTES, "WAL that is flushed and not published.", |r| {
                Some(between(r.watermark?, r.server.as_ref()?.wal_end))
            }),
            (names::UNCONFIRMED_BYTES, "WAL that is flushed and not confirmed.", |r| {
                Some(between(r.confirmed?, r.server.as_ref()?.wal_end))
            }),
            (names::WAITING, "Transactions stored and not visible yet.", |r| Some(count(r.waiting))),
            (names::OLDEST_WAITING, "Age of the oldest of those, 0 without any.", |r| {
                Some(r.oldest_waiting.unwrap_or_default().as_secs_f64())
            }),
            (names::UNREADY, "1 while snapshots wait for transactions older than the log.", |r| {
                Some(f64::from(r.unready))
            }),
            (names::EPOCH_OPENED, "When the epoch was opened, by PostgreSQL's clock.", |r| {
                Some(r.server.as_ref()?.epoch_opened)
            }),
            (names::SLOT_RETAINED, "WAL that PostgreSQL keeps for the slot.", |r| {
                r.server.as_ref()?.retained_bytes.map(size)
            }),
            (names::SLOT_SAFE, "WAL that can still be written before the slot is in danger.", |r| {
                r.server.as_ref()?.safe_wal_bytes.map(size)
            }),
            (names::SLOT_LIMIT, "max_slot_wal_keep_size; absent without a limit.", |r| {
                r.server.as_ref()?.wal_limit_bytes.map(size)
            }),
            (names::WEBHOOK_LAG, "How late the webhook is; absent without one.", |r| {
                Some(r.webhook_lag?.as_secs_f64())
            }),
        ];
        let gauges = table.into_iter().map(|(name, help, read)| Ok((gauge(name, help)?, read)));
        let help = "1 for the state that the slot's WAL is in, 0 for the others.";
        Ok(Live {
            tenants,
            following: gauge(names::FOLLOWING, "1 while a session follows the WAL.")?,
            gauges: gauges.collect::<Result<_, prometheus::Error>>()?,
            wal_status: GaugeVec::new(Opts::new(names::SLOT_STATUS, help), &["tenant", "status"])?,
        })
    }
}

impl Collector for Live {
    fn desc(&self) -> Vec<&Desc> {
        let others = self.following.desc().into_iter().chain(self.wal_status.desc());
        self.gauges.iter().flat_map(|(gauge, _)| gauge.desc()).chain(others).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Held to the end: two scrapes at once must not empty each other's gauges.
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        self.gauges.iter().for_each(|(gauge, _)| gauge.reset());
        self.following.reset();
        self.wal_status.reset();
        for (tenant, vitals) in tenants.iter() {
            let (tenant, readings) = (tenant.as_str(), vitals.as_ref().map(|vitals| vitals.read(now)));
            let follows = readings.as_ref().is_some_and(|readings| readings.following);
            self.following.with_label_values(&[tenant]).set(f64::from(follows));
            // Nobody works for it, so there is nothing else to say.
            let Some(readings) = readings else { continue };
            for (gauge, read) in &self.gauges {
                if let Some(value) = read(&readings) {
                    gauge.with_label_values(&[tenant]).set(value);
                }
            }
            if let Some(status) = readings.server.and_then(|server| server.wal_status) {
                for state in WAL_STATES {
                    let is = f64::from(status == state);
                    self.wal_status.with_label_values(&[tenant, state]).set(is);
                }
            }
        }
        let others = self.following.collect().into_iter().chain(self.wal_status.collect());
        let families = self.gauges.iter().flat_map(|(gauge, _)| gauge.collect()).chain(others);
        families.filter(|family| !family.get_metric().is_empty()).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 bytes of WAL are 9 petabytes")]
fn bytes(lsn: Lsn) -> f64 {
    lsn.get() as f64
}

fn between(from: Lsn, to: Lsn) -> f64 {
    bytes(Lsn::new(to.get().saturating_sub(from.get())))
}

#[expect(clippy::cast_precision_loss, reason = "sizes of WAL lie far below 2^53")]
fn size(bytes: i64) -> f64 {
    bytes as f64
}

#[expect(clippy::cast_precision_loss, reason = "at most some hundred thousand")]
fn count(number: usize) -> f64 {
    number as f64
}
