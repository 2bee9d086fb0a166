//! PostgreSQL goes back to an earlier state on purpose: devices come to hold that state and what is made of it.

use posduif_testkit::{Backup, Database, Servers, eventually, start_archive};
use tokio_postgres::Client;

use crate::{
    mark,
    site::PATIENCE,
    stage::{Outcome, Stage},
};

const BEFORE: &str = "mark: before";
const AFTER: &str = "mark: after";
/// What a recovery to an earlier point costs.
const RECOVERED: Outcome = Outcome::NewEpoch("timeline_forked");
/// What an earlier dump costs that is restored under the same name.
const RESTORED: Outcome = Outcome::NewEpoch("heartbeat_lost");

async fn mark(stage: &Stage, mark: &str) {
    mark::leave(&stage.session().await, mark).await;
    mark::arrives(stage, mark).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_recovery_to_a_point_in_time_takes_from_devices_what_came_after_it() {
    let mut stage = Stage::begin("a_recovery_to_a_point_in_time").await;
    start_archive(&mut stage.servers).await;
    stage.resume();
    stage.works().await;
    let backup = Backup::take(&stage.servers, stage.servers.postgres(), "backup").await;
    mark(&stage, BEFORE).await;
    let client = stage.session().await;
    let target: String =
        client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
    mark(&stage, AFTER).await;
    client.batch_execute("SELECT pg_switch_wal()").await.unwrap();
    // A shutdown waits for the archive.
    stage.servers.postgres_mut().stop().await.unwrap();
    let recovered = backup.recover(&stage.servers, "recovered", &target).await;
    stage.take(recovered).await;
    let status = stage.status().await;
    let newest = &status["database"]["epoch_history"][0];
    assert!(newest["detail"].as_str().unwrap().contains("timeline 2"), "{status}");
    assert_eq!((&status["database"]["timeline"], &status["log"]["timeline"]), (&2.into(), &2.into()));
    let devices = stage.devices();
    assert!(stage.ends(RECOVERED).await > 0, "nothing was lost");
    assert!(devices.iter().all(|device| mark::held(device) == [BEFORE]));
}

/// Replaces the tenant's database by an earlier copy of it, as a dump restores it: same rows, other files, no slot.
async fn restore(servers: &Servers, database: &Database, copy: &str) {
    let (admin, name) = (servers.superuser().await, database.name());
    eventually(PATIENCE, "nobody uses the database any more", async || {
        let slots = "SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots WHERE database = $1 AND active";
        admin.query(slots, &[&name]).await?;
        let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1";
        admin.query(drop, &[&name]).await?;
        admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await?;
        Ok(Some(()))
    })
    .await;
    admin.batch_execute(&format!("ALTER DATABASE {copy} RENAME TO {name}")).await.unwrap();
}

/// Copies the tenant's database beside it; the template must be at rest.
async fn copy(admin: &Client, name: &str, copy: &str) {
    eventually(PATIENCE, "the database is at rest", async || {
        let others = "SELECT count(pg_terminate_backend(pid, 1000)) FROM pg_stat_activity WHERE datname = $1";
        admin.query(others, &[&name]).await?;
        admin.batch_execute(&format!("CREATE DATABASE {copy} TEMPLATE {name} OWNER posduif_admin")).await?;
        Ok(Some(()))
    })
    .await;
    // What a template does not carry over.
    let grants = format!("GRANT CONNECT ON DATABASE {copy} TO posduif_ingester, posduif_api");
    admin.batch_execute(&grants).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dump_that_is_restored_under_the_same_name_takes_from_devices_what_it_lacks() {
    let mut stage = Stage::begin("a_dump_that_is_restored").await;
    mark(&stage, BEFORE).await;
    let admin = stage.servers.superuser().await;
    let name = stage.site.database.name().to_owned();
    copy(&admin, &name, "earlier").await;
    stage.resume();
    stage.works().await;
    mark(&stage, AFTER).await;
    stage.rest().await;
    stage.site.ingester.kill9().await;
    restore(&stage.servers, &stage.site.database, "earlier").await;
    stage.site.ingester.start_again();
    stage.follows().await;
    let status = stage.status().await;
    assert_eq!(status["database"]["epoch_history"][0]["reason"], "heartbeat_lost", "{status}");
    let devices = stage.devices();
    stage.resume();
    assert!(stage.ends(RESTORED).await > 0, "nothing was lost");
    assert!(devices.iter().all(|device| mark::held(device) == [BEFORE]));
}
