//! Two servers that both think they lead: the log follows one at a time, and never takes one's history for the other's.

use std::sync::Arc;

use posduif_provision::Postgres;
use posduif_sdk::Device;
use posduif_testkit::{Standby, eventually, session};
use tokio::task::JoinHandle;

use crate::{
    mark::{self, GHOST},
    phone::{agrees, sync},
    site::PATIENCE,
    stage::{Set, Stage},
    status::codes,
};

/// Nobody waits for the standby, so the former primary can go on without it.
const LOOSE: Set = Set { synchronous: false, keeps_slots: true, waits: false };

fn shows_no_ghost(devices: &[Arc<Device>]) -> bool {
    devices.iter().all(|device| mark::held(device).is_empty())
}

async fn has_all(stage: &Stage, standby: &Standby) {
    let (primary, standby) = (stage.session().await, standby.session("postgres").await);
    eventually(PATIENCE, "the standby has all", async || {
        let end = "SELECT pg_current_wal_flush_lsn()::text";
        let end: String = primary.query_one(end, &[]).await?.get(0);
        let has = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
        Ok(standby.query_one(has, &[&end]).await?.get::<_, bool>(0).then_some(()))
    })
    .await;
}

/// Promotes a standby that has all, while the primary lives on without it.
async fn promoted(stage: &mut Stage, standby: Standby) -> Postgres {
    stage.rest().await;
    stage.site.ingester.kill9().await;
    has_all(stage, &standby).await;
    standby.link.black_hole(true);
    standby.promote().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_former_primary_that_is_reached_again_is_another_history_and_so_is_the_way_back() {
    let mut stage = Stage::begin("a_former_primary_that_is_reached_again").await;
    let standby = stage.standby(LOOSE).await;
    let epoch = stage.site.log.state().await.unwrap().unwrap().epoch;
    let direct = session(stage.servers.postgres(), stage.site.database.name()).await;
    let promoted = promoted(&mut stage, standby).await;
    stage.site.ingester.start_again();
    let former = stage.take(promoted).await;
    // The former primary does not know, and takes writes of whoever still reaches it.
    mark::leave(&direct, GHOST).await;
    stage.resume();
    stage.works().await;
    assert_eq!(stage.site.log.state().await.unwrap().unwrap().epoch, epoch, "nothing was lost");
    assert!(shows_no_ghost(&stage.devices()), "two servers are followed");
    let held = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1 AND active";
    let held: i64 = direct.query_one(held, &[&stage.slot()]).await.unwrap().get(0);
    assert_eq!(held, 0, "two servers are followed");

    // By mistake the address leads to it again.
    let newer = stage.take(former).await;
    let status = stage.status().await;
    let newest = &status["database"]["epoch_history"][0];
    assert_eq!(newest["reason"], "timeline_forked", "{status}");
    assert!(newest["detail"].as_str().unwrap().contains("former primary"), "{status}");
    mark::arrives(&stage, GHOST).await;
    // And the mistake is mended.
    stage.take(newer).await;
    let devices = stage.devices();
    stage.ends_after(&["timeline_forked", "not_registered"]).await;
    assert!(shows_no_ghost(&devices));
}

/// Two standbys of one primary that are promoted one after the other both call their timeline 2. What tells them apart is a
/// heartbeat of the first one; with `held` none of it gets into the log before the second one follows.
async fn second_promotion(test: &'static str, held: bool) {
    let mut stage = Stage::begin(test).await;
    let first = stage.standby(LOOSE).await;
    stage.rest().await;
    let second = Standby::start(&stage.servers, "standby_2", true).await;
    second.has_slot(&stage.servers, &stage.slot()).await;
    for device in stage.devices() {
        agrees(&stage.site, &stage.session().await, &device).await;
    }
    stage.site.ingester.kill9().await;
    for standby in [&first, &second] {
        has_all(&stage, standby).await;
    }
    stage.servers.postgres_mut().kill9().await;
    let first = first.promote().await;
    let database = stage.site.database.name().to_owned();
    let client = session(&first, &database).await;
    mark::leave(&client, GHOST).await;
    let held = if held { Some(hold_back(&first, &database).await) } else { None };
    drop(stage.servers.move_to(first));
    stage.servers.address().cut_all();
    stage.site.ingester.start_again();
    mark::arrives(&stage, GHOST).await;
    stage.servers.postgres_mut().kill9().await;
    drop(held);
    let second = second.promote().await;
    let client = session(&second, &database).await;
    // More than the first one had, so that no position tells the two apart.
    for n in 0..300 {
        mark::leave(&client, &format!("real {n}")).await;
    }
    stage.take(second).await;
    stage.resume();
    let devices = stage.devices();
    stage.ends_after(&["heartbeat_lost"]).await;
    assert!(shows_no_ghost(&devices), "a row of the first one stays");
}

/// A commit that waits for a standby that is not there, and so does everything behind it.
async fn hold_back(postgres: &Postgres, database: &str) -> JoinHandle<()> {
    let admin = session(postgres, database).await;
    admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let client = session(postgres, database).await;
    eventually(PATIENCE, "commits wait for a standby", async || {
        let names: String = client.query_one("SHOW synchronous_standby_names", &[]).await?.get(0);
        Ok((names == "nobody").then_some(()))
    })
    .await;
    let waiting = tokio::spawn(async move {
        // Its server is killed while it waits.
        let insert = "INSERT INTO users (username) VALUES ('waits')";
        client.batch_execute(insert).await.unwrap_err();
    });
    eventually(PATIENCE, "a commit waits", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        Ok((admin.query_one(sql, &[]).await?.get::<_, i64>(0) > 0).then_some(()))
    })
    .await;
    waiting
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_second_promoted_standby_of_the_same_timeline_number_is_another_history() {
    second_promotion("a_second_promoted_standby", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn so_it_is_when_no_heartbeat_of_the_first_one_got_into_the_log() {
    second_promotion("so_it_is_when_no_heartbeat", true).await;
}

/// The address moves, but connections of a replica stay with the former primary: what devices write must not go there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_is_still_connected_to_the_former_primary_leaves_it_once_the_log_has() {
    let mut stage = Stage::begin("a_replica_that_is_still_connected").await;
    let standby = stage.standby(LOOSE).await;
    let direct = session(stage.servers.postgres(), stage.site.database.name()).await;
    let promoted = promoted(&mut stage, standby).await;
    let _former = stage.servers.move_to(promoted);
    let status = stage.status().await;
    assert_eq!(codes(&status, "problems")[0], "slot_inactive", "{status}");
    assert!(codes(&status, "problems").contains(&"other_server".to_owned()), "{status}");
    // The ingester alone is led to the new one.
    stage.site.ingester.start_again();
    stage.follows().await;
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'posduif_api' AND backend_type = 'client backend'";
    let connected: i64 = direct.query_one(connected, &[]).await.unwrap().get(0);
    assert!(connected > 0, "the replica has left already; the test proves nothing");
    // The replica hears of it with the next question of any device.
    for phone in &stage.phones {
        phone.syncs().await;
    }
    let device = Arc::clone(&stage.phones[0].device);
    device.send_message(stage.phones[1].device.user_id(), "written after the fail-over").unwrap();
    sync(&device).await;
    let client = stage.session().await;
    let sql = "SELECT count(*) FROM messages WHERE content = 'written after the fail-over'";
    let at_former: i64 = direct.query_one(sql, &[]).await.unwrap().get(0);
    let at_new: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!((at_former, at_new), (0, 1), "the message went to a server that nobody follows");
    agrees(&stage.site, &client, &device).await;
    stage.resume();
    stage.ends_after(&[]).await;
}
