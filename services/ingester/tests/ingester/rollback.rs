//! P4: a PostgreSQL that went back in time. A smaller LSN is not an old change.

use std::{path::Path, process::Command};

use posduif_model::{Bucket, UserId};
use posduif_testkit::{Scratch, Servers, eventually};

use crate::fixture::{SOON, Tenant};

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success(), "{} was not copied", from.display());
}

async fn restart(servers: &mut Servers, tenant: &mut Tenant) {
    servers.postgres_mut().restart().await.unwrap();
    tenant.client = tenant.database.connect().await;
}

/// A tenant whose server will be taken back to before "lost", which its log has.
async fn with_a_saved_past(servers: &mut Servers, past: &Path) -> (Tenant, UserId) {
    let mut tenant = Tenant::create(servers).await;
    let running = tenant.ingest().await;
    let bob = tenant.user("Bob").await;
    tenant.message(bob, bob, "before").await;
    tenant.caught_up().await;
    drop(running);
    servers.postgres_mut().stop().await.unwrap();
    copy(&servers.postgres().data(), past);
    restart(servers, &mut tenant).await;
    let running = tenant.ingest_again().await;
    tenant.message(bob, bob, "lost").await;
    tenant.caught_up().await;
    drop(running);
    (tenant, bob)
}

/// Writes as much as the log had, so that no position tells the two histories apart.
async fn overtake(tenant: &Tenant, bob: UserId) {
    let end = tenant.state().await.watermark.end.to_string();
    tenant.message(bob, bob, "another history").await;
    let sql = "SELECT pg_logical_emit_message(true, 'test', repeat('x', 100000)),
                      pg_current_wal_flush_lsn() > $1::text::pg_lsn + 100000";
    while !tenant.client.query_one(sql, &[&end]).await.unwrap().get::<_, bool>(1) {}
}

async fn opens_an_epoch_and_follows_the_new_history(tenant: &Tenant, bob: UserId) {
    let before = tenant.state().await.epoch;
    let _running = tenant.ingest_again().await;
    assert_ne!(
        tenant.state().await.epoch,
        before,
        "the lost change stays on devices, the new one is taken for old"
    );
    tenant.message(bob, bob, "after").await;
    assert_eq!(tenant.entries(&[Bucket::User(bob)]).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_rolled_back_opens_an_epoch() {
    for overtaken in [false, true] {
        let (mut servers, scratch) = (Servers::durable().await, Scratch::new());
        let past = scratch.join("past");
        let (mut tenant, bob) = with_a_saved_past(&mut servers, &past).await;
        servers.postgres_mut().stop().await.unwrap();
        copy(&past, &servers.postgres().data());
        restart(&mut servers, &mut tenant).await;
        if overtaken {
            // Same cluster, same timeline, every position plausible: only a heartbeat row is missing.
            overtake(&tenant, bob).await;
        }
        opens_an_epoch_and_follows_the_new_history(&tenant, bob).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_to_a_point_in_time_opens_an_epoch() {
    let (mut servers, scratch) = (Servers::durable().await, Scratch::new());
    let (past, archive) = (scratch.join("past"), scratch.join("archive"));
    std::fs::create_dir(&archive).unwrap();
    std::fs::set_permissions(&archive, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let archive_command = format!("cp %p {}/%f", archive.display());
    let sql = format!("ALTER SYSTEM SET archive_command = '{archive_command}'");
    let admin = servers.superuser().await;
    admin.batch_execute("ALTER SYSTEM SET archive_mode = on").await.unwrap();
    admin.batch_execute(&sql).await.unwrap();
    servers.postgres_mut().restart().await.unwrap();

    let (mut tenant, bob) = with_a_saved_past(&mut servers, &past).await;
    let target: String =
        tenant.client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
    // After the target, and in the log.
    let running = tenant.ingest_again().await;
    tenant.message(bob, bob, "after the target").await;
    tenant.caught_up().await;
    drop(running);
    servers.superuser().await.batch_execute("SELECT pg_switch_wal()").await.unwrap();
    servers.postgres_mut().stop().await.unwrap();

    let data = servers.postgres().data();
    copy(&past, &data);
    let recovery = format!(
        "restore_command = 'cp {}/%f %p'\nrecovery_target_lsn = '{target}'\nrecovery_target_action = 'promote'\n",
        archive.display()
    );
    let configuration = data.join("postgresql.auto.conf");
    let settings = std::fs::read_to_string(&configuration).unwrap();
    std::fs::write(&configuration, settings + &recovery).unwrap();
    copy(&data.join("PG_VERSION"), &data.join("recovery.signal"));
    restart(&mut servers, &mut tenant).await;
    eventually(SOON, "the recovery is over", async || {
        let row = tenant.client.query_one("SELECT pg_is_in_recovery()", &[]).await?;
        Ok((!row.get::<_, bool>(0)).then_some(()))
    })
    .await;
    let sql = "SELECT content FROM messages ORDER BY created_at";
    let contents: Vec<String> =
        tenant.client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(
        contents,
        ["before", "lost"],
        "the recovery did not end at its target; the test proves nothing"
    );
    overtake(&tenant, bob).await;
    opens_an_epoch_and_follows_the_new_history(&tenant, bob).await;
}
