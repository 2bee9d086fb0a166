//! Types that are made of others, while they change, and settings that change what values look like.

use posduif_model::Bucket;
use posduif_runtime::postgres;
use posduif_testkit::Servers;
use serde_json::{Value, json};

use crate::fixture::Tenant;

const TABLE: &str = "[{table: things, buckets: [shared]}]";
const SQL: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TYPE inner_pair AS (n int8, mood mood);
    CREATE DOMAIN pairs AS inner_pair[];
    CREATE TABLE things (id int PRIMARY KEY, pairs pairs, span tstzrange, hidden text)";

async fn rows(tenant: &Tenant) -> Vec<Value> {
    let entries = tenant.entries(&[Bucket::Shared]).await;
    let changes = entries.iter().flat_map(|entry| &entry.changes);
    let things = changes.filter(|change| change.table.name() == "things");
    things.map(|change| serde_json::from_str(&change.row).unwrap()).collect()
}

/// The session ends after the change, the next one has another epoch and the new form.
async fn heals(change: &str, insert: &str, expected: Value) {
    let tenant = Tenant::with_tables(Servers::shared().await, TABLE, SQL).await;
    let running = tenant.ingest().await;
    let before = tenant.caught_up().await;
    tenant.client.batch_execute(change).await.unwrap();
    let reason = running.ended().await;
    assert!(reason.contains("altered"), "{change}: {reason}");
    let _next = tenant.ingest_again().await;
    assert_ne!(tenant.state().await.epoch, before.epoch, "{change}");
    tenant.client.batch_execute(insert).await.unwrap();
    assert_eq!(rows(&tenant).await[0]["pairs"], expected, "{change}");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_composed_types_are_json_all_the_way_down() {
    let tenant = Tenant::with_tables(Servers::shared().await, TABLE, SQL).await;
    let _ingester = tenant.ingest().await;
    let insert = r#"INSERT INTO things VALUES (1, '{"(9007199254740993,ok)","(,)",NULL}', '(,infinity)')"#;
    tenant.client.batch_execute(insert).await.unwrap();
    let pairs = json!([{"n": "9007199254740993", "mood": "ok"}, {"n": null, "mood": null}, null]);
    assert_eq!(
        rows(&tenant).await,
        [json!({"id": 1, "pairs": pairs, "span": "(,infinity)", "hidden": null})]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_composite_type_that_gets_an_attribute_opens_an_epoch() {
    let insert = r#"INSERT INTO things VALUES (1, '{"(1,ok,x)"}')"#;
    let expected = json!([{"n": "1", "mood": "ok", "note": "x"}]);
    heals("ALTER TYPE inner_pair ADD ATTRIBUTE note text", insert, expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_composite_type_with_a_renamed_attribute_opens_an_epoch() {
    let insert = r#"INSERT INTO things VALUES (1, '{"(1,ok)"}')"#;
    heals("ALTER TYPE inner_pair RENAME ATTRIBUTE n TO m", insert, json!([{"m": "1", "mood": "ok"}])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_label_opens_an_epoch() {
    let insert = r#"INSERT INTO things VALUES (1, '{"(1,fine)"}')"#;
    heals("ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'", insert, json!([{"n": "1", "mood": "fine"}])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_role_and_database_do_not_reach_a_connection() {
    let tenant = Tenant::create(Servers::shared().await).await;
    let name = tenant.database.name();
    let admin = tenant.database.connect_superuser().await;
    let pinned = [
        ("DateStyle", "'German', 'DMY'", "ISO, YMD"),
        ("IntervalStyle", "iso_8601", "postgres"),
        ("TimeZone", "'Asia/Kathmandu'", "UTC"),
        ("extra_float_digits", "'-10'", "1"),
        ("bytea_output", "escape", "hex"),
        ("xmlbinary", "hex", "base64"),
        ("xmloption", "document", "content"),
        ("lc_monetary", "'POSIX'", "C"),
        ("standard_conforming_strings", "off", "on"),
        ("quote_all_identifiers", "on", "off"),
        ("client_encoding", "LATIN1", "UTF8"),
    ];
    for (index, (setting, hostile, _)) in pinned.iter().enumerate() {
        let whom = if index % 2 == 0 { "ROLE posduif_ingester IN" } else { "" };
        admin
            .batch_execute(&format!("ALTER {whom} DATABASE {name} SET {setting} = {hostile}"))
            .await
            .unwrap();
    }
    let (plain, connection) =
        tokio_postgres::connect(tenant.database.ingester_url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let (client, driver) = postgres::connect(&tenant.session.tenant, "test").await.unwrap();
    let driver = tokio::spawn(driver);
    for (setting, _, expected) in pinned {
        let show = format!("SHOW {setting}");
        let told: String = client.query_one(&show, &[]).await.unwrap().get(0);
        assert_eq!(told, expected, "{setting}");
        // tokio-postgres itself asks for UTF-8.
        if setting != "client_encoding" {
            let hostile: String = plain.query_one(&show, &[]).await.unwrap().get(0);
            assert_ne!(hostile, expected, "{setting} would not have been changed");
        }
    }
    drop(client);
    driver.await.unwrap().unwrap();
}
