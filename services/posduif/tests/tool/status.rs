//! `posduif status` against real servers and a real ingester.

use posduif_testkit::{Servers, eventually};
use serde_json::Value;

use crate::fixture::{Installation, SOON};

/// The words of all problems.
fn problems(tenant: &Value) -> Vec<&str> {
    tenant["problems"].as_array().unwrap().iter().map(|note| note["code"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_tenant_is_ok_and_json_has_the_documented_keys() {
    let installation = Installation::start(Servers::shared().await).await;
    installation.migrate().await;
    let _ingester = installation.ingester().await;
    installation.well().await;
    let (code, report) = installation.status().await;
    assert_eq!(code, 0, "{report}");
    let tenant = &report["tenants"][0];
    assert!(tenant["ingester"].as_str().unwrap().contains(':'), "{report}");
    assert_eq!((&report["ok"], &tenant["verdict"]), (&true.into(), &"ok".into()), "{report}");
    assert!(tenant["lag_seconds"].as_f64().unwrap() < 30.0, "{report}");
    assert_eq!(tenant["database"]["slot"]["active"], true);
    assert_eq!(tenant["database"]["epoch"]["epoch"], tenant["log"]["epoch"]);
    assert_eq!(tenant["database"]["epoch_history"][0]["reason"], "new_slot");
    assert!(tenant["log"]["commits"].as_u64().unwrap() >= 1, "{report}");
    assert_eq!(tenant["database"]["devices"]["enrolled"], 0);

    // The document names every key.
    let documented = include_str!("../../../../docs/STATUS.md");
    let mut keys = Vec::new();
    collect_keys(&report, &mut keys);
    assert!(keys.len() > 40, "{keys:?}");
    for key in keys {
        assert!(documented.contains(&format!("`{key}`")), "docs/STATUS.md lacks {key}");
    }

    let (code, text) = installation.table(&[]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("TENANT") && text.contains("active") && text.contains("new_slot"), "{text}");
}

fn collect_keys(value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                keys.push(key.clone());
                collect_keys(member, keys);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_keys(item, keys)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_counted_and_a_slot_of_nobody_is_told() {
    let servers = Servers::private().await;
    let installation = Installation::start(&servers).await;
    installation.migrate().await;
    let client = installation.database.connect_superuser().await;
    client
        .batch_execute(
            "WITH u AS (INSERT INTO users (username) VALUES ('a-name-that-nobody-may-see') RETURNING id)
             INSERT INTO devices (id, user_id, last_seen, revoked_at)
             SELECT v.* FROM u CROSS JOIN LATERAL (VALUES
               ('d1', u.id, now(), NULL::timestamptz), ('d2', u.id, now() - interval '2 days', NULL),
               ('d3', u.id, NULL, now())) v",
        )
        .await
        .unwrap();
    let orphan = "SELECT pg_create_logical_replication_slot('posduif_sync_gone', 'pgoutput')";
    client.query(orphan, &[]).await.unwrap();
    let (_, report) = installation.status().await;
    let devices = &report["tenants"][0]["database"]["devices"];
    assert_eq!(devices["enrolled"], 2, "{report}");
    assert_eq!((&devices["revoked"], &devices["seen_last_day"]), (&1.into(), &1.into()), "{report}");
    assert_eq!(report["orphan_slots"][0]["slot"], "posduif_sync_gone", "{report}");
    let (_, text) = installation.table(&[]).await;
    assert!(text.contains("pg_drop_replication_slot('posduif_sync_gone')"), "{text}");
    assert!(!text.contains("nobody-may-see") && !report.to_string().contains("nobody-may-see"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_ingester_shows_as_lag_and_as_a_slot_that_nobody_follows() {
    let installation = Installation::start(Servers::shared().await).await;
    installation.migrate().await;
    let mut ingester = installation.ingester().await;
    installation.well().await;
    assert_eq!(ingester.terminate(SOON).await, 0);
    let (report, before) = eventually(2 * SOON, "it lags", async || {
        let (code, report) = installation.status().await;
        let codes = problems(&report["tenants"][0]).join(" ");
        anyhow::ensure!(codes.contains("slot_inactive") && codes.contains("lagging"), "{report}");
        anyhow::ensure!(code == 1, "the exit code is {code}");
        let lag = report["tenants"][0]["lag_seconds"].as_f64().unwrap();
        Ok(Some((report, lag)))
    })
    .await;
    let verdict = report["tenants"][0]["verdict"].as_str().unwrap();
    assert!(verdict.contains("start posduif-ingester"), "{verdict}");
    let (_, later) = installation.status().await;
    assert!(later["tenants"][0]["lag_seconds"].as_f64().unwrap() > before, "the lag does not grow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_called_lost() {
    let servers = Servers::private().await;
    let admin = servers.superuser().await;
    admin.batch_execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let installation = Installation::start(&servers).await;
    installation.migrate().await;
    let mut ingester = installation.ingester().await;
    assert_eq!(ingester.terminate(SOON).await, 0);
    eventually(2 * SOON, "the slot is lost", async || {
        admin
            .batch_execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1024 * 1024), true); SELECT pg_switch_wal()")
            .await?;
        admin.batch_execute("CHECKPOINT").await?;
        let (code, report) = installation.status().await;
        let tenant = &report["tenants"][0];
        anyhow::ensure!(problems(tenant).contains(&"slot_lost"), "{report}");
        assert_eq!(code, 1);
        assert!(tenant["verdict"].as_str().unwrap().starts_with("the slot is lost: "), "{report}");
        Ok(Some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_down_leaves_what_postgresql_knows() {
    let mut servers = Servers::private().await;
    let installation = Installation::start(&servers).await;
    installation.migrate().await;
    let _ingester = installation.ingester().await;
    installation.well().await;
    servers.redis_mut().stop().await.unwrap();
    installation.set_redis_password("canary-of-redis");
    let (code, report) = installation.status().await;
    let tenant = &report["tenants"][0];
    assert_eq!((code, problems(tenant)), (1, vec!["redis_unreachable"]), "{report}");
    let (_, text) = installation.table(&[]).await;
    assert!(!text.contains("canary") && !report.to_string().contains("canary"), "{text}");
    assert_eq!((&tenant["log"], &tenant["database"]["slot"]["active"]), (&Value::Null, &true.into()));
    servers.redis_mut().restart().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_is_down_leaves_what_redis_knows_and_shows_no_password() {
    let mut servers = Servers::private().await;
    let installation = Installation::start(&servers).await;
    installation.migrate().await;
    let mut ingester = installation.ingester().await;
    assert_eq!(ingester.terminate(SOON).await, 0);
    servers.postgres_mut().stop().await.unwrap();
    let (code, report) = installation.status().await;
    let tenant = &report["tenants"][0];
    assert_eq!((code, problems(tenant)), (1, vec!["postgres_unreachable"]), "{report}");
    assert_eq!(tenant["database"], Value::Null);
    assert!(tenant["log"]["watermark"].as_str().unwrap().contains('/'), "{report}");
    let (_, text) = installation.table(&[]).await;
    assert!(!text.contains("secret") && !report.to_string().contains("secret"), "{text}");
    servers.postgres_mut().restart().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_missing_are_no_server_that_is_down() {
    let installation = Installation::start(Servers::shared().await).await;
    installation.migrate().await;
    let client = installation.database.connect().await;
    client.batch_execute("REVOKE ALL ON devices FROM posduif_api").await.unwrap();
    let (code, report) = installation.status().await;
    let codes = problems(&report["tenants"][0]);
    assert_eq!((code, codes), (1, vec!["postgres_refused", "log_missing"]), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_migration_and_the_first_start_it_says_what_to_run() {
    let installation = Installation::start(Servers::shared().await).await;
    let (code, report) = installation.status().await;
    assert_eq!(
        (code, problems(&report["tenants"][0])),
        (1, vec!["not_migrated", "slot_missing", "log_missing"])
    );
    installation.migrate().await;
    let (code, report) = installation.status().await;
    assert_eq!((code, problems(&report["tenants"][0])), (1, vec!["slot_missing", "log_missing"]), "{report}");
    assert_eq!(report["tenants"][0]["database"]["epoch"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_exit_code_2() {
    let installation = Installation::start(Servers::shared().await).await;
    let (code, text) = installation.table(&["--tenant", "nobody"]).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("nobody is no tenant"), "{text}");
    assert_eq!(installation.table(&["--no-such-flag"]).await.0, 2);
    let (code, text) = installation.table(&["--tenant", installation.database.name()]).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(installation.database.name()), "{text}");
}
