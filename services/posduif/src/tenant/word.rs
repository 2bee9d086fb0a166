//! What an operator wants of a tenant in, the row that says so to every ingester out.

use anyhow::Context;
use tokio_postgres::{Client, Row, error::SqlState};

/// What stands in the tenant's database.
#[derive(Clone, Debug, Default)]
pub struct Word {
    pub paused_at: Option<String>,
    pub dropped_at: Option<String>,
    pub changed_by: String,
}

/// What an operator may say.
#[derive(Clone, Copy, Debug)]
pub enum Say {
    Pause,
    Resume,
    Drop,
    /// Takes a dropped tenant up again; one that is paused stays so.
    TakeUp,
}

const READ: &str = r#"to_char(paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS paused_at,
                      to_char(dropped_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS dropped_at, changed_by"#;

impl Say {
    /// Said twice, the first time stands.
    fn assignments(self) -> &'static str {
        match self {
            Say::Pause => "paused_at = coalesce(paused_at, now())",
            Say::Resume => "paused_at = NULL",
            Say::Drop => "dropped_at = coalesce(dropped_at, now()), paused_at = NULL",
            Say::TakeUp => "dropped_at = NULL, paused_at = CASE WHEN dropped_at IS NULL THEN paused_at END",
        }
    }

    /// Whether it is news where this stands.
    fn differs_from(self, word: &Word) -> bool {
        match self {
            Say::Pause => word.paused_at.is_none(),
            Say::Resume => word.paused_at.is_some(),
            Say::Drop => word.dropped_at.is_none(),
            Say::TakeUp => word.dropped_at.is_some(),
        }
    }
}

/// What stands there.
pub async fn read(client: &Client) -> anyhow::Result<Word> {
    let row = client.query_one(&format!("SELECT {READ} FROM posduif_engine.tenancy"), &[]).await;
    Ok(of(&row.map_err(explain)?)?)
}

/// The same; nothing in a database of an earlier version.
pub async fn read_if_any(client: &Client) -> Result<Word, tokio_postgres::Error> {
    match client.query_one(&format!("SELECT {READ} FROM posduif_engine.tenancy"), &[]).await {
        Err(error)
            if [Some(&SqlState::UNDEFINED_TABLE), Some(&SqlState::INVALID_SCHEMA_NAME)]
                .contains(&error.code()) =>
        {
            Ok(Word::default())
        }
        row => of(&row?),
    }
}

/// Says it, and wakes the ingesters that listen; returns what stands there then.
pub async fn say(client: &Client, say: Say) -> anyhow::Result<Word> {
    let before = read(client).await?;
    if !say.differs_from(&before) {
        return Ok(before);
    }
    let sql = format!(
        "WITH said AS (UPDATE posduif_engine.tenancy SET {}, changed_by = coalesce($1, current_user::text) RETURNING *)
         SELECT {READ}, pg_notify('posduif_tenancy', '') FROM said",
        say.assignments()
    );
    let row = client.query_one(&sql, &[&person()]).await;
    Ok(of(&row.map_err(explain)?)?)
}

fn of(row: &Row) -> Result<Word, tokio_postgres::Error> {
    Ok(Word { paused_at: row.try_get(0)?, dropped_at: row.try_get(1)?, changed_by: row.try_get(2)? })
}

fn explain(error: tokio_postgres::Error) -> anyhow::Error {
    let missing = error.code() == Some(&SqlState::UNDEFINED_TABLE);
    let error = anyhow::Error::new(error);
    if missing {
        error.context("the database is not migrated to this version; run posduif migrate")
    } else {
        error
    }
}

/// Who runs the tool, as the machine knows them.
fn person() -> Option<String> {
    let names = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    names
        .map(|name| name.chars().filter(|c| !c.is_control()).take(63).collect::<String>())
        .find(|name| !name.is_empty())
}

/// A database in which no table says anything has never been migrated, so nobody follows it.
pub async fn is_migrated(client: &Client) -> anyhow::Result<bool> {
    let sql = "SELECT to_regclass('posduif_engine.sync_epoch') IS NOT NULL";
    Ok(client.query_one(sql, &[]).await.context("PostgreSQL refused")?.try_get(0)?)
}
