//! Devices that were heard of in, one write to PostgreSQL for all of them every minute out.
//!
//! A sync with nothing new costs no query, and still an operator sees when a device was there last.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use posduif_model::{DeviceId, Lsn};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    store::sync_metadata::{self, Seen},
    tenant::Tenant,
};

/// Devices that are remembered at most; of those beyond only the confirmed position, in Redis, is known.
const MOST: usize = 100_000;

/// Devices that one statement notes.
const STEP: usize = 1_000;

/// The devices of one tenant that this replica heard of since it last wrote them down.
#[derive(Debug, Default)]
pub struct Sightings(Mutex<HashMap<DeviceId, Seen>>);

impl Sightings {
    /// Remembers that the device was there, and up to which commit it has everything.
    pub fn note(&self, device: &DeviceId, at: DateTime<Utc>, commit: Option<Lsn>) {
        let mut seen = self.lock();
        if let Some(known) = seen.get_mut(device) {
            known.at = known.at.max(at);
            known.commit = commit.or(known.commit);
        } else if seen.len() < MOST {
            seen.insert(device.clone(), Seen { device: device.clone(), at, commit });
        }
    }

    fn take(&self) -> Vec<Seen> {
        mem::take(&mut *self.lock()).into_values().collect()
    }

    /// What was noted meanwhile is newer and stays.
    fn put_back(&self, seen: &[Seen]) {
        let mut held = self.lock();
        for one in seen {
            held.entry(one.device.clone()).or_insert_with(|| one.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes sightings down every `interval` until the token is cancelled, and once more then.
pub async fn write_down(app: &App, interval: Duration, shutdown: CancellationToken) {
    loop {
        let is_last = shutdown.run_until_cancelled(tokio::time::sleep(interval)).await.is_none();
        for tenant in app.tenants() {
            write_down_once(&tenant).await;
        }
        if is_last {
            return;
        }
    }
}

/// Writes down what was noted of one tenant until now.
pub async fn write_down_once(tenant: &Tenant) {
    let seen = tenant.sightings.take();
    for (index, some) in seen.chunks(STEP).enumerate() {
        let noted = tenant.database.run(async |client| sync_metadata::note(client, some).await).await;
        if let Err(error) = noted {
            tracing::warn!(tenant = %tenant.id, %error, "last_seen of devices is written down later");
            tenant.sightings.put_back(seen.get(index * STEP..).unwrap_or_default());
            return;
        }
    }
}
