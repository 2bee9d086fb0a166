//! What `pg_replication_slots` says of the tenant's slot.

use posduif_model::Lsn;
use tokio_postgres::Client;

/// A logical slot as the catalogue view shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub plugin: String,
    pub database: String,
    /// The WAL before this is confirmed; the stream begins here.
    pub confirmed: Lsn,
    /// The walsender that uses it.
    pub active_pid: Option<i32>,
    /// Whether standbys keep a copy of it (PostgreSQL 17 and later).
    pub failover: bool,
    /// Why the slot can no longer be read, if it cannot.
    pub fault: Option<SlotFault>,
}

/// A slot whose WAL is gone; only a new one helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFault(pub String);

impl Slot {
    /// The slot's row, `None` when there is no such slot.
    pub async fn find(client: &Client, name: &str) -> Result<Option<Slot>, tokio_postgres::Error> {
        let row = client
            .query_opt(
                "SELECT coalesce(plugin, ''), coalesce(database, ''), confirmed_flush_lsn::text,
                        wal_status, invalidation_reason, active_pid, failover
                   FROM pg_replication_slots WHERE slot_name = $1",
                &[&name],
            )
            .await?;
        Ok(row.map(|row| {
            let confirmed: Option<String> = row.get(2);
            let (wal_status, invalidation): (Option<String>, Option<String>) = (row.get(3), row.get(4));
            let lost = wal_status.filter(|status| status == "lost").map(|_| "its WAL was removed".to_owned());
            Slot {
                plugin: row.get(0),
                database: row.get(1),
                confirmed: confirmed.and_then(|text| text.parse().ok()).unwrap_or_default(),
                active_pid: row.get(5),
                failover: row.get(6),
                fault: invalidation.or(lost).map(SlotFault),
            }
        }))
    }
}
