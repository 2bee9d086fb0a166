//! Every type that a column may have: what a snapshot brings equals what the stream brings, byte for byte, and both
//! equal what PostgreSQL says by another way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod phone;
mod sample;
mod services;

use std::collections::BTreeMap;

use posduif_sdk::Device;
use posduif_testkit::{API, Database, INGESTER, Servers, eventually};
use rusqlite::types::Value as Stored;
use serde_json::{Value, json};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{
    phone::{Phone, Rows, enrollment},
    sample::{Sample, samples},
    services::{SOON, Services},
};

const SETUP: &str = include_str!("samples.sql");
/// Rows per transaction, so that pages of the stream stay small.
const AT_ONCE: usize = 100;

/// Rows per type; CI takes the default.
fn row_count() -> usize {
    std::env::var("POSDUIF_TYPES_ROWS")
        .map_or(1_000, |text| text.parse().expect("POSDUIF_TYPES_ROWS is a number"))
}

/// Settings of role and database that would change the text of values, were they not pinned on every connection.
async fn make_hostile(admin: &Client, database: &str) {
    let of_database = [
        ("datestyle", "German, DMY"),
        ("intervalstyle", "iso_8601"),
        ("bytea_output", "escape"),
        ("xmlbinary", "hex"),
        ("xmloption", "document"),
        ("quote_all_identifiers", "on"),
    ];
    let of_role = [("timezone", "Asia/Kathmandu"), ("extra_float_digits", "-10"), ("datestyle", "SQL, DMY")];
    for (name, value) in of_database {
        let sql = format!("ALTER DATABASE {database} SET {name} = '{}'", value.replace(", ", "','"));
        admin.batch_execute(&sql).await.unwrap();
    }
    for (name, value) in of_role {
        let value = value.replace(", ", "','");
        for role in [API, INGESTER] {
            admin
                .batch_execute(&format!("ALTER ROLE {role} IN DATABASE {database} SET {name} = '{value}'"))
                .await
                .unwrap();
        }
    }
}

/// A session that writes values as PostgreSQL's manual does.
async fn session(database: &Database) -> Client {
    let sql = database.connect().await;
    let settings = "SET datestyle = 'ISO, YMD'; SET intervalstyle = postgres; SET timezone = 'UTC';
                    SET extra_float_digits = 1; SET bytea_output = hex; SET xmloption = content;
                    SET quote_all_identifiers = off; SELECT setseed(0.42)";
    sql.batch_execute(settings).await.unwrap();
    sql
}

/// Whether the server is built with libxml; one that is not must say so in its own words.
async fn has_xml(sql: &Client) -> bool {
    match sql.simple_query("SELECT xml '<a/>'").await {
        Ok(_) => true,
        Err(error) => {
            let code = error.code().expect("an answer of the server");
            assert_eq!(code.code(), "0A000", "xml fails for another reason than a server without libxml");
            false
        }
    }
}

fn column(index: usize) -> String {
    format!("c{index:03}")
}

/// One expression per column: picked values for the first rows, then random ones; a tenth is NULL.
fn expressions(samples: &[Sample]) -> Vec<String> {
    let quoted = |text: &String| format!("'{}'", text.replace('\'', "''"));
    let expression = |sample: &Sample| {
        let (name, random) = (&sample.type_name, &sample.random);
        let picked: Vec<String> = sample.picked.iter().map(quoted).collect();
        format!(
            "CASE WHEN n % 1000 BETWEEN 1 AND {} THEN (ARRAY[{}]::text[])[n % 1000]::{name}
                  WHEN random() < 0.1 THEN NULL ELSE ({random})::{name} END",
            picked.len(),
            picked.join(", ")
        )
    };
    samples.iter().map(expression).collect()
}

async fn insert(sql: &Client, samples: &[Sample], first: usize, last: usize) {
    let values = expressions(samples).join(",\n");
    for from in (first..=last).step_by(AT_ONCE) {
        let to = last.min(from + AT_ONCE - 1);
        sql.batch_execute(&format!(
            "INSERT INTO samples SELECT n, {values} FROM generate_series({from}, {to}) n"
        ))
        .await
        .unwrap();
    }
}

/// Gives every second column new values; the others, large ones among them, stay as they are.
async fn update(sql: &Client, samples: &[Sample], first: usize, last: usize) {
    let expressions = expressions(samples);
    let half: Vec<String> = expressions
        .iter()
        .enumerate()
        .filter(|(index, _)| index % 2 == 0)
        .map(|(index, expression)| {
            format!(
                "{} = {}",
                column(index),
                expression.replace("n % 1000", "(id + 1) % 1000").replace("0 * n", "0 * id")
            )
        })
        .collect();
    for from in (first..=last).step_by(AT_ONCE) {
        let to = last.min(from + AT_ONCE - 1);
        let sql_text = format!("UPDATE samples SET {} WHERE id BETWEEN {from} AND {to}", half.join(",\n"));
        sql.batch_execute(&sql_text).await.unwrap();
    }
}

/// The rows of the snapshot and of the stream have the same JSON, byte for byte.
fn assert_same(samples: &[Sample], snapshot: &Rows, stream: &Rows) {
    for (key, streamed) in &stream.0 {
        let read = snapshot.0.get(key).unwrap_or_else(|| panic!("{key} is in the stream only"));
        assert_eq!(read.len(), samples.len() + 1);
        for (name, text) in streamed {
            assert_eq!(read[name].get(), text.get(), "{key} {name}: snapshot and stream differ");
        }
    }
}

/// The rows equal what PostgreSQL says of their values by another way.
async fn assert_true(sql: &Client, samples: &[Sample], rows: &Rows) {
    let mut wrong = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        let name = column(index);
        let query =
            format!("SELECT id, ({})::text FROM samples ORDER BY id", sample.oracle.replace("{c}", &name));
        let mut compared = 0;
        for message in sql.simple_query(&query).await.unwrap_or_else(|error| panic!("{query}: {error:?}")) {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let (id, expected) = (row.get(0).unwrap(), row.get(1).unwrap_or("null"));
            let Some(got) = rows.0.get(&format!("{{\"id\":{id}}}")) else { continue };
            let got = got[&name].get();
            if !says_the_same(got, expected) {
                wrong.push(format!("{} of row {id}: {got} is not {expected}", sample.type_name));
            }
            compared += 1;
        }
        assert_eq!(compared, rows.0.len(), "{}: too few rows were compared", sample.type_name);
    }
    assert!(wrong.is_empty(), "{} values are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn says_the_same(got: &str, expected: &str) -> bool {
    let expected = expected.trim();
    if got == expected {
        return true;
    }
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    let is_deep = expected.starts_with(&"[".repeat(65));
    match (parsed(got), parsed(expected)) {
        (Some(Value::String(text)), _) if is_deep => text == expected,
        (Some(got), Some(expected)) => got == expected,
        _ => false,
    }
}

/// Each column of the device's SQLite holds what the page says, JSON as the text that it is.
fn assert_stored(device: &Device, samples: &[Sample], rows: &Rows) {
    let connection = device.connection();
    let mut statement = connection.prepare("SELECT * FROM samples").unwrap();
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut stored = statement.query([]).unwrap();
    let mut compared = 0;
    while let Some(row) = stored.next().unwrap() {
        let id: i64 = row.get("id").unwrap();
        let page = &rows.0[&format!("{{\"id\":{id}}}")];
        for (index, sample) in samples.iter().enumerate().filter(|(_, sample)| sample.sqlite.1) {
            let name = column(index);
            let place = names.iter().position(|other| *other == name).unwrap();
            let text = page[&name].get();
            let expected = match serde_json::from_str::<String>(text) {
                _ if text == "null" => Stored::Null,
                Ok(document) if document.starts_with(&"[".repeat(65)) => Stored::Text(document),
                _ => Stored::Text(text.to_owned()),
            };
            assert_eq!(row.get::<_, Stored>(place).unwrap(), expected, "{} of row {id}", sample.type_name);
        }
        compared += 1;
    }
    assert_eq!(compared, rows.0.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_comes_by_snapshot_and_by_stream_as_the_same_bytes() {
    let count = row_count();
    let servers = Servers::shared().await;
    let database = Database::create(servers).await;
    make_hostile(&servers.superuser().await, database.name()).await;
    let sql = session(&database).await;
    // Fails, and says so, where the server has no hstore: contrib belongs to PostgreSQL.
    sql.batch_execute(SETUP).await.unwrap_or_else(|error| panic!("the types cannot be made: {error:?}"));
    let samples = samples(has_xml(&sql).await);
    assert!(samples.len() >= 45);
    let columns: Vec<String> = samples
        .iter()
        .enumerate()
        .map(|(index, sample)| format!("{} {}", column(index), sample.type_name))
        .collect();
    let table = format!("CREATE TABLE samples (id int PRIMARY KEY, {})", columns.join(", "));
    sql.batch_execute(&table).await.unwrap_or_else(|error| panic!("{error:?}"));

    let declared = json!([{ "table": "public.samples", "buckets": ["shared"] }]);
    let services = Services::start(&database, declared).await;
    let mut reader = Phone::enroll(&services, "reader").await;
    let (nothing, _) = reader.read().await;
    assert!(nothing.0.is_empty());

    let told: BTreeMap<String, (String, bool)> = reader
        .columns("public.samples")
        .await
        .iter()
        .map(|c| {
            (
                c["name"].as_str().unwrap().to_owned(),
                (c["type"].as_str().unwrap().to_owned(), c["json"] == true),
            )
        })
        .collect();
    for (index, sample) in samples.iter().enumerate() {
        let (sqlite, is_json) = &told[&column(index)];
        assert_eq!((sqlite.as_str(), *is_json), sample.sqlite, "{}", sample.type_name);
    }

    // Before a snapshot.
    insert(&sql, &samples, 1, count).await;
    let streamed = reader.stream(count).await;
    let mut late = Phone::enroll(&services, "late").await;
    let (read, snapshot) = late.read().await;
    assert!(snapshot);
    assert_eq!((read.0.len(), streamed.0.len()), (count, count));
    assert_same(&samples, &read, &streamed);
    assert_true(&sql, &samples, &streamed).await;

    // While streaming: other rows, and other values of the same rows.
    insert(&sql, &samples, count + 1, 2 * count).await;
    update(&sql, &samples, 1, count).await;
    let streamed = late.stream(2 * count).await;
    let (read, _) = Phone::enroll(&services, "later").await.read().await;
    assert_eq!((read.0.len(), streamed.0.len()), (2 * count, 2 * count));
    assert_same(&samples, &read, &streamed);
    assert_true(&sql, &samples, &streamed).await;

    let url = enrollment(&services).await["qr_code_data"]["enrollment_url"].as_str().unwrap().to_owned();
    let device =
        Device::enroll(services.scratch.join("device.sqlite"), &url, "Joe", json!({})).await.unwrap();
    eventually(SOON, "a device takes the snapshot", async || Ok(Some(device.sync().await?))).await;
    assert_stored(&device, &samples, &read);
}
