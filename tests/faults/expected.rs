//! A tenant database in, what each bucket's readers should hold out, written by PostgreSQL's own SQL.

use std::collections::BTreeMap;

use posduif_testkit::eventually;
use serde_json::Value;
use tokio_postgres::{Client, Error, Transaction};

use crate::{
    schema::{Declared, Schema},
    tenant::PATIENCE,
};

/// Table, then primary key as canonical JSON.
pub type Key = (String, String);
/// Rows as JSON.
pub type Rows = BTreeMap<Key, String>;
/// `shared` or `user:<id>`, and what it holds.
pub type Buckets = BTreeMap<String, Rows>;

/// JSON whose text does not depend on who wrote it.
pub fn canonical(json: &str) -> String {
    serde_json::from_str::<Value>(json).unwrap_or_else(|error| panic!("{error}: {json}")).to_string()
}

/// What the readers of every bucket should hold, as this transaction sees it.
///
/// # Errors
/// PostgreSQL's own; beside writers that truncate it may be chosen as the victim of a deadlock.
pub async fn read(transaction: &Transaction<'_>, schema: &Schema) -> Result<Buckets, Error> {
    let mut buckets = Buckets::new();
    for declared in &schema.declared {
        let types = types(transaction, &declared.name).await?;
        for bucket in &declared.buckets {
            let sql = select(declared, bucket.as_deref(), &types);
            for row in transaction.query(&sql, &[]).await? {
                let (bucket, key, text): (String, String, String) = (row.get(0), row.get(1), row.get(2));
                let id = (declared.name.clone(), canonical(&key));
                buckets.entry(bucket).or_default().insert(id, text);
            }
        }
    }
    Ok(buckets)
}

/// [`read`] with a snapshot of its own, again and again until no deadlock is in the way.
pub async fn snapshot(client: &mut Client, schema: &Schema) -> Buckets {
    eventually(PATIENCE, "a snapshot of all tables", async || {
        let level = tokio_postgres::IsolationLevel::RepeatableRead;
        let transaction = client.build_transaction().isolation_level(level).read_only(true).start().await?;
        Ok(Some(read(&transaction, schema).await?))
    })
    .await
}

/// Names and types of a table's columns, as the catalogue has them now: DDL changes them while the test runs.
async fn types(transaction: &Transaction<'_>, table: &str) -> Result<Vec<(String, String)>, Error> {
    let sql = "SELECT attname::text, atttypid::regtype::text FROM pg_attribute
                WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let rows = transaction.query(sql, &[&table]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn select(declared: &Declared, bucket: Option<&str>, types: &[(String, String)]) -> String {
    let kind =
        |name: &String| types.iter().find(|(of, _)| of == name).map(|(_, kind)| kind.as_str()).unwrap();
    let object = |names: &[String]| {
        let part =
            |name: &String| format!("'\"{name}\":' || coalesce(({})::text, 'null')", json(name, kind(name)));
        let parts: Vec<String> = names.iter().map(part).collect();
        format!("'{{' || {} || '}}'", parts.join(" || ',' || "))
    };
    let all: Vec<String> = types.iter().map(|(name, _)| name.clone()).collect();
    let name = match bucket {
        None => "'shared'".to_owned(),
        Some(column) => format!("'user:' || {column}"),
    };
    let reached = bucket.map(|column| format!(" WHERE {column} IS NOT NULL")).unwrap_or_default();
    let (key, row) = (object(&declared.key), object(declared.columns.as_ref().unwrap_or(&all)));
    format!("SELECT {name}, {key}, {row} FROM {}{reached}", declared.name)
}

/// How a value of this type is documented to look in JSON.
fn json(column: &str, kind: &str) -> String {
    match kind {
        "boolean"
        | "smallint"
        | "integer"
        | "real"
        | "double precision"
        | "json"
        | "jsonb"
        | "timestamp without time zone" => format!("to_json({column})"),
        "bytea" => format!("to_json(translate(encode({column}, 'base64'), E'\\n', ''))"),
        "timestamp with time zone" => {
            format!("to_json(replace(to_json({column}) #>> '{{}}', '+00:00', 'Z'))")
        }
        _ => format!("to_json({column}::text)"),
    }
}

/// Whether two texts are the same JSON; almost always they are the same bytes, which is quick to see.
fn same(a: &str, b: &str) -> bool {
    a == b || canonical(a) == canonical(b)
}

/// The first few differences between what is held and what should be, empty when there are none.
pub fn differences(held: &Rows, expected: &Rows) -> String {
    let short = |text: &String| text.chars().take(300).collect::<String>();
    let missing = expected.iter().filter_map(|(key, row)| match held.get(key) {
        None => Some(format!("missing {key:?} {}", short(row))),
        Some(other) if !same(other, row) => Some(format!("{key:?} is {} not {}", short(other), short(row))),
        Some(_) => None,
    });
    let extra = held.keys().filter(|key| !expected.contains_key(*key)).map(|key| format!("extra {key:?}"));
    missing.chain(extra).take(5).collect::<Vec<_>>().join("\n")
}
