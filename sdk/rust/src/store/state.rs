//! `posduif_state`: who this device is and how far it has come. Written by enrolment and by sync only.
//!
//! | name | value |
//! |---|---|
//! | `applying` | 1 inside a transaction of sync, where triggers capture nothing; 0 for everybody else |
//! | `device_id` | chosen by the device before it enrols |
//! | `enrollment_token` | the token that `device_id` was chosen for, until enrolment is complete |
//! | `base_url`, `instructions_url` | where the server is |
//! | `user_id`, `username`, `tenant_id` | whose device this is |
//! | `device_token` | the credential, in clear text: the file is private to its user |
//! | `rules`, `tables`, `batch_size`, `sync_interval` | the installed app instructions; the interval in seconds |
//! | `instructed_at` | when they were installed, in seconds since 1970 |
//! | `skipped` | JSON array of the announced tables that the device does not keep, each with the reason |
//! | `stale` | 1 once the server gave a reason to ask for the app instructions again, until they are installed |
//! | `cursor`, `lsn` | how far the visible tables have come |
//! | `synced_at` | when a catch-up was last applied, in seconds since 1970 |

use std::time::Duration;

use chrono::{DateTime, Utc};
use posduif_model::{DeviceId, Lsn, UserId};
use rusqlite::{Connection, OptionalExtension, ToSql, types::FromSql};
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use uuid::Uuid;

use super::{Store, staging::start_over};
use crate::{
    error::{Error, Result},
    instructions::SkippedTable,
    step::Progress,
    table::Table,
};

/// Write rules and the sync interval may change without a new cursor: a day later the device asks for them anyway.
const INSTRUCTIONS_LAST: i64 = 24 * 3600;

/// A completed enrolment: whom the device speaks for and with which credential.
#[derive(Clone, Debug)]
pub(crate) struct Enrollment {
    pub device_id: DeviceId,
    pub user_id: UserId,
    pub tenant_id: String,
    pub username: String,
    pub base_url: Url,
    pub instructions_url: Url,
    pub device_token: SecretString,
}

pub(super) fn get<T: FromSql>(conn: &Connection, name: &str) -> Result<Option<T>> {
    let value = conn
        .prepare_cached("SELECT value FROM posduif_state WHERE name = ?1")?
        .query_row([name], |row| row.get::<_, Option<T>>(0))
        .optional()?;
    Ok(value.flatten())
}

pub(super) fn set(conn: &Connection, name: &str, value: impl ToSql) -> Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO posduif_state VALUES (?1, ?2)")?.execute((name, value))?;
    Ok(())
}

/// The synced tables as they were last installed.
pub(crate) fn tables(conn: &Connection) -> Result<Vec<Table>> {
    match get::<String>(conn, "tables")? {
        Some(json) => serde_json::from_str(&json).map_err(|error| damaged("tables", error)),
        None => Ok(Vec::new()),
    }
}

/// The announced tables that were left out when the others were installed.
pub(crate) fn skipped(conn: &Connection) -> Result<Vec<SkippedTable>> {
    match get::<String>(conn, "skipped")? {
        Some(json) => serde_json::from_str(&json).map_err(|error| damaged("skipped", error)),
        None => Ok(Vec::new()),
    }
}

pub(super) fn user_id(conn: &Connection) -> Result<UserId> {
    parsed(conn, "user_id")
}

/// A catch-up was applied now, by this device's clock.
pub(super) fn synced(tx: &Connection) -> Result<()> {
    set(tx, "synced_at", Utc::now().timestamp())
}

/// When a catch-up was last applied, if ever.
pub(crate) fn last_synced(conn: &Connection) -> Result<Option<DateTime<Utc>>> {
    Ok(get::<i64>(conn, "synced_at")?.and_then(|seconds| DateTime::from_timestamp(seconds, 0)))
}

/// The position that the visible tables show.
pub(super) fn lsn(conn: &Connection) -> Result<Option<Lsn>> {
    get::<String>(conn, "lsn")?.map(|text| text.parse().map_err(|error| damaged("lsn", error))).transpose()
}

pub(super) fn progress(conn: &Connection) -> Result<Progress> {
    let (since, complete) = match super::staging::newest(conn)? {
        Some((cursor, has_more)) => (Some(cursor), !has_more),
        None => (get(conn, "cursor")?, false),
    };
    let installed = get::<String>(conn, "rules")?.is_some();
    let fresh = get::<i64>(conn, "instructed_at")?
        .is_some_and(|at| (0..INSTRUCTIONS_LAST).contains(&(Utc::now().timestamp() - at)));
    let instructed = installed && fresh && get::<i64>(conn, "stale")?.is_none();
    Ok(Progress { installed, instructed, since, complete })
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(conn: &Connection, name: &'static str) -> Result<T> {
    let text = get::<String>(conn, name)?.ok_or_else(not_enrolled)?;
    text.parse().map_err(|error| damaged(name, error))
}

fn not_enrolled() -> Error {
    Error::Unusable("this device is not enrolled yet".to_owned())
}

pub(super) fn damaged(name: &str, error: impl std::fmt::Display) -> Error {
    Error::Unusable(format!("the device database is damaged: {name}: {error}"))
}

impl Store {
    /// Where the next sync goes on.
    pub fn progress(&self) -> Result<Progress> {
        progress(&self.conn)
    }

    /// Rows that the device wishes per incoming page, within what the server allows.
    pub fn batch_size(&self) -> Result<u32> {
        Ok(get::<u32>(&self.conn, "batch_size")?.unwrap_or(100).clamp(1, 500))
    }

    /// How often a device asks that is not told; the server's wish, brought into a second to a day.
    pub fn sync_interval(&self) -> Result<Duration> {
        let seconds = get::<u32>(&self.conn, "sync_interval")?.unwrap_or(30);
        Ok(Duration::from_secs(u64::from(seconds.clamp(1, 24 * 3600))))
    }

    /// The completed enrolment; an error before it.
    pub fn enrollment(&self) -> Result<Enrollment> {
        let conn = &self.conn;
        let token = get::<String>(conn, "device_token")?.ok_or_else(not_enrolled)?;
        Ok(Enrollment {
            device_id: parsed(conn, "device_id")?,
            user_id: user_id(conn)?,
            tenant_id: get(conn, "tenant_id")?.ok_or_else(not_enrolled)?,
            username: get(conn, "username")?.ok_or_else(not_enrolled)?,
            base_url: parsed(conn, "base_url")?,
            instructions_url: parsed(conn, "instructions_url")?,
            device_token: token.into(),
        })
    }

    pub fn is_enrolled(&self) -> Result<bool> {
        Ok(get::<String>(&self.conn, "device_token")?.is_some())
    }

    /// The id under which this device redeems the token: the same one for each try, so that a lost answer can
    /// be asked for again, and another one for another token. An enrolled device keeps its id.
    pub fn device_id_for(&mut self, enrollment_token: &str) -> Result<DeviceId> {
        self.write(|tx| {
            if get::<String>(tx, "enrollment_token")?.as_deref() != Some(enrollment_token) {
                set(tx, "enrollment_token", enrollment_token)?;
                if get::<String>(tx, "device_token")?.is_none() {
                    set(tx, "device_id", Uuid::new_v4().to_string())?;
                }
            }
            parsed(tx, "device_id")
        })
    }

    /// Keeps the outcome of an enrolment; from here on the device may sync, and takes a snapshot first.
    pub fn enrolled(&mut self, enrollment: &Enrollment) -> Result<()> {
        self.write(|tx| {
            set(tx, "device_id", enrollment.device_id.as_str())?;
            set(tx, "user_id", enrollment.user_id.to_string())?;
            set(tx, "tenant_id", &enrollment.tenant_id)?;
            set(tx, "username", &enrollment.username)?;
            set(tx, "base_url", enrollment.base_url.as_str())?;
            set(tx, "instructions_url", enrollment.instructions_url.as_str())?;
            set(tx, "device_token", enrollment.device_token.expose_secret())?;
            tx.execute("DELETE FROM posduif_state WHERE name = 'enrollment_token'", [])?;
            set(tx, "stale", 1)?;
            start_over(tx)
        })
    }
}
