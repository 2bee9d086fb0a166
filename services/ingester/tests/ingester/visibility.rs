//! P1: what is decoded but not yet visible stays above the watermark.

use std::time::Duration;

use posduif_changelog::Keys;
use posduif_model::Bucket;
use posduif_testkit::{Servers, eventually};
use tokio_postgres::Client;

use crate::fixture::{SOON, Tenant};

async fn set_standbys(admin: &Client, change: &str) {
    admin.batch_execute(&format!("ALTER SYSTEM {change}")).await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_a_standby_is_stored_but_not_published() {
    // A cluster of its own: the setting stops every commit that waits.
    let servers = Servers::private().await;
    let tenant = Tenant::create(&servers).await;
    let _running = tenant.ingest().await;
    tenant.user("Bob").await;
    let before = tenant.caught_up().await;
    let admin = servers.superuser().await;
    set_standbys(&admin, "SET synchronous_standby_names = 'nobody'").await;
    eventually(SOON, "the setting is in force", async || {
        let value: String = tenant.client.query_one("SHOW synchronous_standby_names", &[]).await?.get(0);
        Ok((value == "nobody").then_some(()))
    })
    .await;
    let writer = tenant.database.connect().await;
    let waiting = tokio::spawn(async move {
        let sql = "INSERT INTO users (username) VALUES ('Waiting')";
        writer.batch_execute(sql).await
    });
    let mut redis = tenant.redis().await;
    let shared = Keys::new(tenant.id()).bucket(&before.epoch, &Bucket::Shared);
    eventually(SOON, "the invisible row is in the log", async || {
        let found: Vec<redis::Value> =
            redis::cmd("XRANGE").arg(&shared).arg("-").arg("+").query_async(&mut redis).await?;
        Ok((found.len() == 2).then_some(()))
    })
    .await;
    // Several looks of the gate long, and past a heartbeat.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let held = tenant.state().await;
    let visible: i64 = tenant.client.query_one("SELECT count(*) FROM users", &[]).await.unwrap().get(0);
    assert_eq!(visible, 1, "the standby's absence did not hide the row; the test proves nothing");
    let entries = {
        let read = tenant.log.read(&held.epoch, &[Bucket::Shared], held.base, held.watermark.commit, 100);
        match read.await.unwrap() {
            posduif_changelog::reader::Read::Page(page) => page.entries.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(entries, 1, "readers see a row that PostgreSQL does not show yet");
    set_standbys(&admin, "RESET synchronous_standby_names").await;
    waiting.await.unwrap().unwrap();
    assert_eq!(tenant.entries(&[Bucket::Shared]).await.len(), 2);
    assert_eq!(tenant.state().await.epoch, before.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingester_can_take_over_while_the_standby_is_missing() {
    let servers = Servers::private().await;
    let tenant = Tenant::create(&servers).await;
    drop(tenant.ingest().await);
    let admin = servers.superuser().await;
    // The next token is then written to the WAL anew, which would wait.
    admin.batch_execute("CHECKPOINT").await.unwrap();
    set_standbys(&admin, "SET synchronous_standby_names = 'nobody'").await;
    let _next =
        tokio::time::timeout(SOON, tenant.ingest_again()).await.expect("the take-over waits for the standby");
    set_standbys(&admin, "RESET synchronous_standby_names").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingester_refuses_to_be_a_synchronous_standby() {
    let servers = Servers::private().await;
    let tenant = Tenant::create(&servers).await;
    let running = tenant.ingest().await;
    let admin = servers.superuser().await;
    set_standbys(&admin, "SET synchronous_standby_names = '*'").await;
    let reason = tokio::time::timeout(SOON, running.ended()).await.expect("commits wait for themselves");
    assert!(reason.contains("synchronous_standby_names"), "{reason}");
    set_standbys(&admin, "RESET synchronous_standby_names").await;
}
