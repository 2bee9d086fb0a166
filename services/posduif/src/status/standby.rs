//! A server in, what of it a fail-over depends on out: its timeline, and the standbys that it keeps WAL for.

use tokio_postgres::{Client, Row};

use super::report::{DatabaseFacts, StandbyFacts};

/// The timeline that a primary writes. That of a standby is as of its newest checkpoint.
pub const TIMELINE: &str = "CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id::int8 FROM pg_control_checkpoint())
     ELSE (SELECT timeline_id::int8 FROM pg_split_walfile_name(pg_walfile_name(pg_current_wal_insert_lsn()))) END";

/// Who streams without a slot is not shown: that is for superusers and readers of all statistics.
pub async fn look(client: &Client, facts: &mut DatabaseFacts) -> Result<(), tokio_postgres::Error> {
    let waits = "SELECT coalesce(array_agg(trim(name)), '{}')
                   FROM unnest(string_to_array(current_setting('synchronized_standby_slots'), ',')) AS name
                  WHERE trim(name) <> ''";
    facts.synchronized_standby_slots = client.query_one(waits, &[]).await?.get(0);
    let standbys = "SELECT slot_name::text, active AND invalidation_reason IS NULL,
                           CASE WHEN NOT pg_is_in_recovery()
                                THEN (pg_current_wal_flush_lsn() - restart_lsn)::bigint END, slot_name = ANY ($1)
                      FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary ORDER BY slot_name";
    let standby = |row: &Row| StandbyFacts {
        slot: row.get(0),
        active: row.get(1),
        behind_bytes: row.get(2),
        waited_for: row.get(3),
    };
    let found = client.query(standbys, &[&facts.synchronized_standby_slots]).await?;
    facts.standbys = found.iter().map(standby).collect();
    Ok(())
}
