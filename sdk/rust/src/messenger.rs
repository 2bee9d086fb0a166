//! The messenger's rows of the local tables, as the application sees them: offline and including its own writes.

use posduif_model::{UserId, table::quote_identifier as quoted};
use rusqlite::{Connection, Params, Row, types::Type};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    table::{List, Table},
};

/// A user of the device's tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    pub id: UserId,
    pub username: String,
    /// `web` or `mobile`, where the server tells.
    pub user_type: Option<String>,
    pub last_message_sent: Option<String>,
    /// RFC 3339.
    pub last_message_at: Option<String>,
}

/// A message from or to the device's user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    pub id: Uuid,
    pub sender_id: UserId,
    pub recipient_id: UserId,
    pub content: Option<String>,
    /// `pending_sync`, `synced` or `read`.
    pub status: Option<String>,
    /// RFC 3339.
    pub created_at: Option<String>,
    /// RFC 3339.
    pub read_at: Option<String>,
    /// Whether a local write to this message waits for its upload.
    pub unsent: bool,
}

/// A local write that has no effect, because the server refused it or has a newer version, or because it cannot
/// be sent at all. What is not UTF-8 shows as U+FFFD here; `posduif_rejected` has the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its place among all local writes.
    pub seq: i64,
    /// The table's name at the server.
    pub table: String,
    /// JSON array of the key's values.
    pub key: String,
    /// JSON object of what was written; none for a delete or a read mark.
    pub row: Option<String>,
    /// An error code of the contract, or `RULES_CHANGED`.
    pub code: String,
    pub error: String,
    /// When the device learned of it, RFC 3339.
    pub at: String,
}

/// The built-in table, if the server grants it.
pub(crate) fn table(tables: &[Table], list: List) -> Result<&Table> {
    let missing = || Error::Unusable("the server does not sync the messenger's tables".to_owned());
    tables.iter().find(|table| table.list == Some(list)).ok_or_else(missing)
}

pub(crate) fn users(
    conn: &Connection,
    table: &Table,
    filter: &str,
    params: impl Params,
) -> Result<Vec<User>> {
    let columns = ["id", "username", "user_type", "last_message_sent", "last_message_at"];
    let sql = format!("SELECT {} FROM {} t {filter}", select(table, &columns), quoted(&table.local_name));
    collect(conn, &sql, params, |row| {
        Ok(User {
            id: parsed(row, 0)?,
            username: row.get(1)?,
            user_type: row.get(2)?,
            last_message_sent: row.get(3)?,
            last_message_at: row.get(4)?,
        })
    })
}

pub(crate) fn messages(
    conn: &Connection,
    table: &Table,
    filter: &str,
    params: impl Params,
) -> Result<Vec<Message>> {
    let columns = ["id", "sender_id", "recipient_id", "content", "status", "created_at", "read_at"];
    let sql = format!(
        r#"SELECT {}, EXISTS (SELECT 1 FROM posduif_outbox o
           WHERE o."table" = '{}' AND o.key = json_array(t.id) AND o.state = 'pending')
           FROM {} t WHERE {filter} ORDER BY julianday(t.created_at), t.id"#,
        select(table, &columns),
        table.name.to_string().replace('\'', "''"),
        quoted(&table.local_name)
    );
    collect(conn, &sql, params, |row| {
        Ok(Message {
            id: parsed(row, 0)?,
            sender_id: parsed(row, 1)?,
            recipient_id: parsed(row, 2)?,
            content: text(row, 3)?,
            status: text(row, 4)?,
            created_at: row.get(5)?,
            read_at: row.get(6)?,
            unsent: row.get(7)?,
        })
    })
}

pub(crate) fn rejected(conn: &Connection) -> Result<Vec<Rejected>> {
    let sql = r#"SELECT seq, "table", key, row, code, error, at FROM posduif_rejected ORDER BY seq"#;
    collect(conn, sql, [], |row| {
        Ok(Rejected {
            seq: row.get(0)?,
            table: row.get(1)?,
            key: text(row, 2)?.unwrap_or_default(),
            row: text(row, 3)?,
            code: row.get(4)?,
            error: row.get(5)?,
            at: row.get(6)?,
        })
    })
}

/// A column that the operator's rules leave out is NULL.
fn select(table: &Table, columns: &[&str]) -> String {
    let column = |name: &&str| match table.column(name) {
        Some(_) => format!("t.{}", quoted(name)),
        None => "NULL".to_owned(),
    };
    columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

fn collect<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    Ok(conn.prepare_cached(sql)?.query_map(params, row)?.collect::<rusqlite::Result<_>>()?)
}

/// The text of a column, which SQLite does not promise to be UTF-8.
fn text(row: &Row<'_>, place: usize) -> rusqlite::Result<Option<String>> {
    let bytes = row.get_ref(place)?.as_bytes_or_null()?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

fn parsed<T>(row: &Row<'_>, place: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: String = row.get(place)?;
    text.parse().map_err(|error: T::Err| {
        rusqlite::Error::FromSqlConversionFailure(place, Type::Text, Box::new(error))
    })
}
