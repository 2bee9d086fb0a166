//! A tenant's database and log in, news of whether an ingester follows it out.

use std::time::Duration;

use anyhow::Context;
use posduif_changelog::LogReader;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

/// How long somebody is waited for who should be there within seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(250);
/// The name under which PostgreSQL knows the sessions of an ingester.
const SESSIONS: &str = "posduif-ingester";

/// Who follows a tenant.
#[derive(Debug)]
pub struct Followers {
    pub slot_exists: bool,
    /// The walsender on the slot.
    pub walsender: Option<i32>,
    /// Sessions of ingesters in the database.
    pub sessions: i64,
    /// WAL that the slot keeps.
    pub retained_bytes: Option<i64>,
}

pub async fn followers(client: &Client, slot: &str) -> anyhow::Result<Followers> {
    let sql = "SELECT s.slot_name IS NOT NULL, s.active_pid,
                      (SELECT count(*) FROM pg_stat_activity
                        WHERE datname = current_database() AND application_name = $2),
                      (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                            ELSE pg_current_wal_flush_lsn() END - s.restart_lsn)::bigint
                 FROM (SELECT) AS one
                 LEFT JOIN pg_replication_slots s ON s.slot_name = $1 AND s.database = current_database()";
    let row = client.query_one(sql, &[&slot, &SESSIONS]).await.context("PostgreSQL refused")?;
    Ok(Followers {
        slot_exists: row.try_get(0)?,
        walsender: row.try_get(1)?,
        sessions: row.try_get(2)?,
        retained_bytes: row.try_get(3)?,
    })
}

/// Waits until no ingester works for the tenant any more.
pub async fn left(client: &Client, slot: &str) -> anyhow::Result<Followers> {
    let (give_up, mut told) = (Instant::now() + PATIENCE, false);
    loop {
        let found = followers(client, slot).await?;
        if found.walsender.is_none() && found.sessions == 0 {
            return Ok(found);
        }
        anyhow::ensure!(
            Instant::now() < give_up,
            "an ingester still follows the tenant after {} s ({} sessions{}), although it was told to leave it alone, which stands. \
             One of an earlier version heeds no such word: stop it, then run this again",
            PATIENCE.as_secs(),
            found.sessions,
            found.walsender.map(|pid| format!(", walsender {pid} on slot {slot}")).unwrap_or_default(),
        );
        if !std::mem::replace(&mut told, true) {
            eprintln!("waiting until the ingester has left the tenant …");
        }
        sleep(POLL).await;
    }
}

/// Waits until a heartbeat that is written from now on becomes visible to readers.
pub async fn joined(client: &Client, log: &LogReader, slot: &str) -> anyhow::Result<()> {
    let newest = "SELECT coalesce(max(sequence), 0) FROM posduif_engine.heartbeat";
    let newest: i64 = client.query_one(newest, &[]).await.context("PostgreSQL refused")?.try_get(0)?;
    let give_up = Instant::now() + PATIENCE;
    eprintln!("waiting until an ingester follows the tenant …");
    loop {
        let state = log.state().await?;
        let seen = state.and_then(|state| state.heartbeat).map(|beat| beat.sequence);
        if seen.is_some_and(|seen| seen > newest) {
            return Ok(());
        }
        if Instant::now() >= give_up {
            let found = followers(client, slot).await?;
            let why = match (found.sessions, found.slot_exists) {
                (0, _) => {
                    "no ingester has come: is posduif-ingester running, does it read this configuration, and can it reach \
                     the database (its /readyz says)?"
                }
                (_, false) => {
                    "an ingester has come, but there is no slot yet: creating one waits for every running transaction to end; look \
                     for the oldest xact_start in pg_stat_activity"
                }
                _ => "an ingester has come, but readers see nothing new; its /readyz says why",
            };
            anyhow::bail!("not followed after {} s: {why}", PATIENCE.as_secs());
        }
        sleep(POLL).await;
    }
}
