//! PostgreSQL's views of a tenant's slot in, vitals and a warning before the slot is lost out.

use std::sync::Arc;

use posduif_runtime::readiness::Readiness;
use tokio_postgres::Client;

use crate::vitals::{Server, Vitals};

/// Looks at what only PostgreSQL knows, with every heartbeat.
#[derive(Debug)]
pub struct Watch {
    pub slot: String,
    pub vitals: Arc<Vitals>,
    pub readiness: Readiness,
    /// The name under which the slot stands in the readiness.
    pub component: String,
}

/// The slot is reported when less than this part of `max_slot_wal_keep_size` is left.
const SHARE: i64 = 4;

impl Watch {
    pub async fn look(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        // The limit's unit is megabytes. The view is open to everybody.
        let sql = "SELECT pg_current_wal_flush_lsn()::text, s.wal_status, s.safe_wal_size,
                          (SELECT nullif(setting::bigint, -1) * 1048576
                             FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
                          (pg_current_wal_flush_lsn() - s.restart_lsn)::bigint,
                          extract(epoch FROM e.opened_at)::float8
                     FROM posduif_engine.sync_epoch e
                     LEFT JOIN pg_replication_slots s ON s.slot_name = $1";
        let row = client.query_one(sql, &[&self.slot]).await?;
        let server = Server {
            wal_end: row.get::<_, String>(0).parse().unwrap_or_default(),
            wal_status: row.get(1),
            safe_wal_bytes: row.get(2),
            wal_limit_bytes: row.get(3),
            retained_bytes: row.get(4),
            epoch_opened: row.get(5),
        };
        match concern(&server) {
            Some(reason) => self.readiness.degraded(&self.component, reason),
            None => self.readiness.ready(&self.component),
        }
        self.vitals.server(server);
        Ok(())
    }
}

/// Why an operator should look at the slot, if one should.
fn concern(server: &Server) -> Option<String> {
    let advice = "raise max_slot_wal_keep_size, or find out what keeps the ingester behind; \
                  a lost slot costs a scan of all synced tables, or a resync of every device";
    match (server.wal_status.as_deref(), server.safe_wal_bytes, server.wal_limit_bytes) {
        (Some("unreserved"), ..) => {
            Some(format!("the next checkpoint of PostgreSQL removes WAL that the slot needs; {advice}"))
        }
        (_, Some(safe), Some(limit)) if safe < limit / SHARE => {
            Some(format!("after {safe} more bytes of WAL the slot is in danger of being lost; {advice}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(status: &str, safe: Option<i64>) -> Server {
        Server {
            wal_end: Default::default(),
            wal_status: Some(status.to_owned()),
            safe_wal_bytes: safe,
            wal_limit_bytes: safe.map(|_| 1_000),
            retained_bytes: None,
            epoch_opened: 0.0,
        }
    }

    #[test]
    fn a_slot_is_reported_before_it_is_lost() {
        assert_eq!(concern(&server("extended", None)), None, "without a limit no slot is lost");
        assert_eq!(concern(&server("reserved", Some(250))), None);
        let near = concern(&server("extended", Some(249))).unwrap();
        assert!(near.contains("249 more bytes") && near.contains("max_slot_wal_keep_size"), "{near}");
        assert!(concern(&server("unreserved", Some(-5))).unwrap().contains("next checkpoint"));
    }
}
