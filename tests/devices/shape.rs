//! A synced row in PostgreSQL's or SQLite's words in, one text form of it out.

use std::collections::{BTreeMap, BTreeSet};

use posduif_model::UserId;
use serde_json::{Map, Value, json};
use tokio_postgres::Client;

/// Table, and the values of its primary key.
pub type Key = (String, Vec<Option<String>>);
/// The values of the columns that are compared.
pub type Row = Vec<Option<String>>;
pub type Rows = BTreeMap<Key, Row>;

/// What each user's accounts hold together, whatever is moved between them.
pub const TOTAL: i64 = 4_000;
pub const ACCOUNTS: i64 = 4;

/// The tables that are compared, with the columns of the primary key before the others.
pub const TABLES: [(&str, &[&str]); 8] = [
    ("tasks", &["id", "owner_id", "title", "done", "updated_at"]),
    ("items", &["id", "owner_id", "title", "body", "done"]),
    ("notes", &["kind", "n", "text"]),
    ("accounts", &["id", "owner_id", "balance"]),
    ("stamps_a", &["txn", "k", "n", "owner_id"]),
    ("stamps_b", &["txn", "k", "n", "owner_id"]),
    (
        "messages",
        &[
            "id",
            "sender_id",
            "recipient_id",
            "content",
            "status",
            "created_at",
            "updated_at",
            "synced_at",
            "read_at",
        ],
    ),
    (
        "users",
        &[
            "id",
            "username",
            "user_type",
            "online_status",
            "last_seen",
            "enrolled_at",
            "last_message_sent",
            "last_message_at",
            "created_at",
            "updated_at",
        ],
    ),
];

pub const SQL: &str = "
    CREATE TABLE items (id bigint PRIMARY KEY, owner_id uuid, title text NOT NULL, body text, done boolean NOT NULL);
    CREATE TABLE notes (kind text, n integer, text text, PRIMARY KEY (kind, n));
    CREATE TABLE accounts (id bigint PRIMARY KEY, owner_id uuid NOT NULL, balance bigint NOT NULL);
    CREATE TABLE stamps_a (txn uuid, k integer, n integer NOT NULL, owner_id uuid NOT NULL, PRIMARY KEY (txn, k));
    CREATE TABLE stamps_b (txn uuid, k integer, n integer NOT NULL, owner_id uuid NOT NULL, PRIMARY KEY (txn, k));
    CREATE TABLE tasks (id uuid PRIMARY KEY, owner_id uuid NOT NULL, title text NOT NULL, done boolean NOT NULL,
        updated_at timestamptz NOT NULL);";

/// `sync.tables`: what a user owns, and what everyone sees.
pub fn declarations() -> Value {
    let own = |table: &str| json!({ "table": format!("public.{table}"), "buckets": ["user:{owner_id}"] });
    let shared = |table: &str| json!({ "table": format!("public.{table}"), "buckets": ["shared"] });
    let mut tasks = own("tasks");
    tasks["write"] = json!({ "owner": "owner_id", "columns": ["title", "done"], "version": "updated_at" });
    json!([own("items"), shared("notes"), own("accounts"), own("stamps_a"), shared("stamps_b"), tasks])
}

pub fn columns(table: &str) -> &'static [&'static str] {
    TABLES.iter().find(|(name, _)| *name == table).unwrap().1
}

fn key_length(table: &str) -> usize {
    if matches!(table, "notes" | "stamps_a" | "stamps_b") { 2 } else { 1 }
}

/// The key of a row as PostgreSQL's JSON.
pub fn key(table: &str, row: &Map<String, Value>) -> Key {
    let columns = &columns(table)[..key_length(table)];
    (table.to_owned(), columns.iter().map(|name| text(name, &row[*name])).collect())
}

/// The key of a row whose values have been read already.
pub fn key_of(table: &str, row: &Row) -> Key {
    (table.to_owned(), row[..key_length(table)].to_vec())
}

pub fn is_visible(table: &str, row: &Map<String, Value>, user: UserId) -> bool {
    let names = |column: &str| row[column].as_str() == Some(user.to_string().as_str());
    match table {
        "items" | "accounts" | "stamps_a" | "tasks" => names("owner_id"),
        "messages" => names("sender_id") || names("recipient_id"),
        _ => true,
    }
}

/// What a device of this user should hold, as PostgreSQL has it now.
pub async fn stored(client: &Client, user: UserId) -> Rows {
    let mut all = Rows::new();
    for (table, columns) in TABLES {
        let sql = format!("SELECT to_jsonb(t) FROM {table} t");
        for row in client.query(&sql, &[]).await.unwrap() {
            let Value::Object(row) = row.get(0) else { panic!("a row of {table} is no object") };
            if is_visible(table, &row, user) {
                let values = columns.iter().map(|name| text(name, &row[*name])).collect();
                all.insert(key(table, &row), values);
            }
        }
    }
    all
}

/// A value as text; instants without zone and trailing zeros, booleans as SQLite has them.
pub fn text(column: &str, value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Bool(is) => Some(u8::from(*is).to_string()),
        Value::String(text) if column.ends_with("_at") || column == "last_seen" => Some(instant(text)),
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn instant(text: &str) -> String {
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00")).expect("an instant in UTC");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text.to_owned()
    }
}

/// The first few differences between what is held and what should be, empty when there are none.
pub fn differences(held: &Rows, expected: &Rows) -> String {
    let keys: BTreeSet<&Key> = held.keys().chain(expected.keys()).collect();
    let differing = keys.into_iter().filter(|key| held.get(key) != expected.get(key));
    let said: Vec<String> = differing
        .map(|key| {
            format!("{key:?}: the device has {:?}, PostgreSQL had {:?}", held.get(key), expected.get(key))
        })
        .collect();
    let shown = said.iter().take(5).map(|line| line.chars().take(600).collect::<String>());
    match said.len() {
        0 => String::new(),
        all => format!("{all} rows differ, such as\n{}", shown.collect::<Vec<_>>().join("\n")),
    }
}
