//! A tenant's database in, what it says of slot, epochs and devices out.

use posduif_changelog::Heartbeat;
use posduif_runtime::{
    config::TenantConfig,
    postgres::{self, ConnectError},
};
use tokio_postgres::{Client, Row};

use super::{
    orphan,
    report::{DatabaseFacts, Devices, EpochFacts, OrphanSlot, PastEpoch, SlotFacts, Standing},
    standby,
};
use crate::tenant::word::{self, Word};

/// Why nothing is known of a database.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Refused(#[from] tokio_postgres::Error),
    #[error("{0} does not answer")]
    Silent(String),
}

/// What is asked of a database.
pub struct Question {
    pub slot: String,
    pub publication: String,
    /// The newest heartbeat that the log has published.
    pub heartbeat: Option<Heartbeat>,
    /// The slots of all configured tenants.
    pub known_slots: Vec<String>,
}

/// Whoever asks for a status must not be one more trouble for a busy server.
const LIMITS: &str =
    "SET statement_timeout = '5s'; SET lock_timeout = '1s'; SET default_transaction_read_only = on";

/// A standby has no end of the WAL of its own.
const WAL_END: &str =
    "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END";

/// Asks as the services' own role, so that what it may not see shows.
pub async fn look(
    tenant: &TenantConfig,
    question: &Question,
) -> Result<(DatabaseFacts, Vec<OrphanSlot>), Trouble> {
    let (client, driver) = postgres::connect(tenant, "posduif-status").await?;
    let driver = tokio::spawn(driver);
    let answer = ask(&client, question).await;
    drop(client);
    // What ended the connection early has failed the question too.
    let _closed = driver.await;
    Ok(answer?)
}

async fn ask(
    client: &Client,
    question: &Question,
) -> Result<(DatabaseFacts, Vec<OrphanSlot>), tokio_postgres::Error> {
    client.batch_execute(LIMITS).await?;
    let server = client
        .query_one(
            &format!(
                "SELECT current_setting('server_version'), pg_is_in_recovery(), ({WAL_END})::text,
                        to_regclass('posduif_engine.epoch_history') IS NOT NULL,
                        EXISTS (SELECT FROM pg_publication WHERE pubname = $1),
                        (SELECT system_identifier::text FROM pg_control_system()), {}",
                standby::TIMELINE
            ),
            &[&question.publication],
        )
        .await?;
    let mut facts = DatabaseFacts {
        version: server.get(0),
        in_recovery: server.get(1),
        wal_end: server.get::<_, Option<String>>(2).unwrap_or_default(),
        migrated: server.get(3),
        publication: server.get(4),
        system: server.get(5),
        timeline: server.get(6),
        ..DatabaseFacts::default()
    };
    if facts.migrated {
        let Word { paused_at, dropped_at, changed_by } = word::read_if_any(client).await?;
        let changed_by = Some(changed_by).filter(|by| !by.is_empty());
        facts.standing = Some(Standing { paused_at, dropped_at, changed_by });
    }
    let is_dropped = facts.standing.as_ref().is_some_and(|standing| standing.dropped_at.is_some());
    let mut orphans = Vec::new();
    for row in slots(client, &question.slot).await? {
        let slot = slot(&row);
        if slot.name == question.slot {
            if is_dropped {
                orphans.push(orphan::of(&slot, row.get(11), orphan::DROPPED));
            }
            facts.slot = Some(slot);
        } else if !question.known_slots.contains(&slot.name) {
            orphans.push(orphan::of(&slot, row.get(11), orphan::NOT_CONFIGURED));
        }
    }
    standby::look(client, &mut facts).await?;
    if facts.migrated {
        engine(client, question, &mut facts).await?;
    }
    Ok((facts, orphans))
}

/// The tenant's slot, and all that are named as the ingester names its own.
async fn slots(client: &Client, own: &str) -> Result<Vec<Row>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT slot_name::text, database::text, plugin::text, active, wal_status, invalidation_reason, failover,
                confirmed_flush_lsn::text, (({WAL_END}) - restart_lsn)::bigint, safe_wal_size,
                (SELECT nullif(setting::bigint, -1) * 1048576 FROM pg_settings
                  WHERE name = 'max_slot_wal_keep_size'),
                (SELECT system_identifier::text FROM pg_control_system()), synced, temporary
           FROM pg_replication_slots
          WHERE slot_type = 'logical' AND (synced OR NOT temporary)
            AND (slot_name = $1 OR starts_with(slot_name::text, 'posduif_sync_'))
          ORDER BY slot_name"
    );
    client.query(&sql, &[&own]).await
}

fn slot(row: &Row) -> SlotFacts {
    SlotFacts {
        name: row.get(0),
        database: row.get(1),
        plugin: row.get(2),
        active: row.get(3),
        wal_status: row.get(4),
        invalidation_reason: row.get(5),
        failover: row.get(6),
        confirmed: row.get(7),
        retained_bytes: row.get(8),
        safe_wal_bytes: row.get(9),
        wal_limit_bytes: row.get(10),
        synced: row.get(12),
        temporary: row.get(13),
    }
}

/// What the migrated schema knows.
async fn engine(
    client: &Client,
    question: &Question,
    facts: &mut DatabaseFacts,
) -> Result<(), tokio_postgres::Error> {
    let when = r#"to_char(opened_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#;
    let epoch = format!(
        "SELECT epoch, reason, {when}, extract(epoch FROM clock_timestamp() - opened_at)::float8,
                (SELECT extract(epoch FROM clock_timestamp() - max(beat_at))::float8
                   FROM posduif_engine.heartbeat),
                (SELECT extract(epoch FROM clock_timestamp() - beat_at)::float8
                   FROM posduif_engine.heartbeat WHERE sequence = $1)
           FROM posduif_engine.sync_epoch"
    );
    let row = client.query_one(&epoch, &[&question.heartbeat.map(|beat| beat.sequence)]).await?;
    let name: String = row.get(0);
    if !name.is_empty() {
        let (reason, opened_at, age_seconds) = (row.get(1), row.get(2), row.get(3));
        facts.epoch = Some(EpochFacts { epoch: name, reason, opened_at, age_seconds });
    }
    (facts.heartbeat_age_seconds, facts.published_age_seconds) = (row.get(4), row.get(5));
    let history = format!(
        "SELECT epoch, reason, detail, {when} FROM posduif_engine.epoch_history ORDER BY opened_at DESC LIMIT 5"
    );
    let past = |row: &Row| PastEpoch {
        epoch: row.get(0),
        reason: row.get(1),
        detail: row.get(2),
        opened_at: row.get(3),
    };
    facts.epoch_history = client.query(&history, &[]).await?.iter().map(past).collect();
    let devices =
        "SELECT count(*) FILTER (WHERE revoked_at IS NULL), count(*) FILTER (WHERE revoked_at IS NOT NULL),
                          count(*) FILTER (WHERE last_seen > now() - interval '1 day') FROM public.devices";
    let row = client.query_one(devices, &[]).await?;
    let (enrolled, revoked, seen_last_day) = (row.get(0), row.get(1), row.get(2));
    facts.devices = Some(Devices { enrolled, revoked, seen_last_day });
    Ok(())
}
