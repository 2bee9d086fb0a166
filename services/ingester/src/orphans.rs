//! The tenants that are configured in, slots on their servers that nobody follows and that belong to none of them out.
//!
//! They are reported and never touched: another installation may share the server.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use posduif_runtime::{
    config::{TenantConfig, WalConfig},
    postgres,
    reload::Tenants,
};
use prometheus::IntGaugeVec;
use tokio::{select, sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

/// Slots do not come and go; the WAL that they keep grows slowly enough.
const EVERY: Duration = Duration::from_secs(60);
/// The longest that one server may take.
const PATIENCE: Duration = Duration::from_secs(20);
const APPLICATION: &str = "posduif-ingester-orphans";

/// Looks at every server that a tenant is on.
pub struct Orphans {
    pub tenants: watch::Receiver<Tenants>,
    pub wal: WalConfig,
    /// Bytes of WAL that a slot keeps.
    pub retained: IntGaugeVec,
}

/// A slot named as an ingester names its own.
struct Slot {
    name: String,
    database: String,
    retained: i64,
}

impl Orphans {
    /// Looks until the process drains.
    pub async fn watch(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut told: BTreeSet<String> = BTreeSet::new();
        loop {
            select! {
                () = self.look(&mut told) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            select! {
                () = tokio::time::sleep(EVERY) => {}
                // A tenant that went may have left a slot; one that came may own what belonged to none.
                Ok(()) = self.tenants.changed() => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    async fn look(&mut self, told: &mut BTreeSet<String>) {
        let tenants = self.tenants.borrow_and_update().clone();
        let known: BTreeSet<String> =
            tenants.iter().map(|tenant| self.wal.slot_name(tenant.url.database())).collect();
        let mut found: BTreeMap<String, Slot> = BTreeMap::new();
        for tenant in servers(&tenants) {
            match timeout(PATIENCE, slots(tenant)).await {
                Ok(Ok(slots)) => found.extend(slots.into_iter().map(|slot| (slot.name.clone(), slot))),
                // The tenant's session says more.
                Ok(Err(error)) => {
                    tracing::debug!(server = tenant.url.redacted(), %error, "no look at the slots")
                }
                Err(_) => tracing::debug!(server = tenant.url.redacted(), "no answer about the slots"),
            }
        }
        found.retain(|name, _| !known.contains(name));
        self.retained.reset();
        for Slot { name, database, retained } in found.values() {
            self.retained.with_label_values(&[name]).set(*retained);
            if !told.contains(name) {
                tracing::warn!(
                    slot = name,
                    database,
                    retained,
                    "a replication slot that nobody follows keeps WAL and belongs to no configured tenant; posduif status says \
                     how to remove it, where no other installation uses it"
                );
            }
        }
        *told = found.into_keys().collect();
    }
}

/// One tenant of each server.
fn servers(tenants: &[TenantConfig]) -> impl Iterator<Item = &TenantConfig> {
    let address = |tenant: &TenantConfig| {
        let config = tenant.url.config();
        (format!("{:?}", config.get_hosts()), config.get_ports().to_vec())
    };
    tenants.iter().map(|tenant| (address(tenant), tenant)).collect::<BTreeMap<_, _>>().into_values()
}

/// Inactive ones: what is followed is somebody's.
async fn slots(tenant: &TenantConfig) -> anyhow::Result<Vec<Slot>> {
    let (client, driver) = postgres::connect(tenant, APPLICATION).await?;
    let driver = tokio::spawn(driver);
    let sql = "SELECT slot_name::text, database::text,
                      coalesce((CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                     ELSE pg_current_wal_flush_lsn() END - restart_lsn)::bigint, 0)
                 FROM pg_replication_slots
                WHERE plugin = 'pgoutput' AND NOT temporary AND NOT active
                  AND starts_with(slot_name::text, 'posduif_sync_')";
    let rows = client.query(sql, &[]).await;
    drop(client);
    // What ended the connection early has failed the question too.
    let _closed = driver.await;
    let read = |row: &tokio_postgres::Row| {
        Ok(Slot { name: row.try_get(0)?, database: row.try_get(1)?, retained: row.try_get(2)? })
    };
    rows?.iter().map(read).collect()
}
