//! PostgreSQL fails over while a device is in the middle of a snapshot, or of a catch-up.

use std::{net::Ipv4Addr, sync::Arc};

use posduif_sdk::Device;
use posduif_testkit::{
    chaos::{Direction, Proxy},
    eventually,
};

use crate::{
    mark::{self, GHOST},
    phone::{agrees, enroll, is_passing, one, sync},
    site::PATIENCE,
    stage::{Outcome, PREPARED, Set, Stage},
};

/// A device of its own user behind a link that can break.
async fn with_a_link(stage: &Stage, name: &str) -> (Device, Proxy) {
    let link = Proxy::start((Ipv4Addr::LOCALHOST, stage.site.port).into()).await;
    let (file, through) =
        (stage.site.scratch.join(&format!("{name}.sqlite")), format!("http://{}", link.address()));
    (enroll(&stage.site, &file, name, false, Some(&through)).await, link)
}

fn staged(device: &Device) -> i64 {
    one(device, "SELECT count(*) FROM posduif_staging")
}

/// Syncs over a link that breaks after so many bytes of answers, until something is staged.
async fn begins(device: &Device, link: &Proxy, bytes: u64) {
    eventually(PATIENCE, "the device is in the middle", async || {
        link.cut_after_bytes(bytes, Direction::ToClient);
        let synced = device.sync().await;
        link.heal(Direction::ToClient);
        match synced {
            Ok(_) => anyhow::bail!("it came to an end"),
            Err(error) => assert!(is_passing(&error), "{error}"),
        }
        Ok((staged(device) > 0).then_some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_that_a_fail_over_interrupts_begins_again_and_a_catch_up_goes_on() {
    let mut stage = Stage::begin("a_snapshot_that_a_fail_over_interrupts").await;
    let standby = stage.standby(PREPARED).await;
    let (fresh, fresh_link) = with_a_link(&stage, "fresh").await;
    let (behind, behind_link) = with_a_link(&stage, "behind").await;
    assert!(sync(&behind).await.snapshot);
    stage.writes(150).await;
    begins(&fresh, &fresh_link, 5_000).await;
    let ended = "SELECT count(*) FROM posduif_state WHERE name = 'lsn'";
    assert_eq!(one::<i64>(&fresh, ended), 0, "its snapshot has ended already");
    begins(&behind, &behind_link, 5_000).await;
    stage.fail_over(standby).await;
    // The snapshot was in its tables: what it showed, the promoted server need not have.
    let (again, on) = (sync(&fresh).await, sync(&behind).await);
    assert!(again.snapshot && !on.snapshot, "{again:?} {on:?}");
    stage.rest().await;
    let client = stage.session().await;
    for device in [&fresh, &behind] {
        agrees(&stage.site, &client, device).await;
    }
    stage.resume();
    assert_eq!(stage.ends(Outcome::GoesOn).await, 0, "what was acknowledged is lost");
}

/// What a table page shows, the ingester need not have decoded, nor the standby have got: no epoch tells of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_row_that_only_a_snapshot_has_seen_goes_with_the_primary() {
    let mut stage = Stage::begin("a_row_that_only_a_snapshot_has_seen").await;
    let standby = stage.standby(Set { synchronous: false, ..PREPARED }).await;
    stage.rest().await;
    let (device, _link) = with_a_link(&stage, "fresh").await;
    let device = Arc::new(device);
    standby.link.black_hole(true);
    let client = stage.session().await;
    mark::leave(&client, GHOST).await;
    let syncing = Arc::clone(&device);
    // It cannot end: the mark behind the tables is not decoded.
    let syncing = tokio::spawn(async move { syncing.sync().await });
    eventually(PATIENCE, "a page shows the row", async || {
        let shows = "SELECT count(*) FROM posduif_staging WHERE instr(CAST(body AS text), 'mark: ghost') > 0";
        Ok((one::<i64>(&device, shows) > 0).then_some(()))
    })
    .await;
    stage.fail_over(standby).await;
    drop(syncing.await.unwrap());
    let lost = "SELECT count(*) FROM users WHERE username = $1";
    let client = stage.session().await;
    let stays: i64 = client.query_one(lost, &[&GHOST]).await.unwrap().get(0);
    assert_eq!(stays, 0, "the standby has the row; the test proves nothing");
    agrees(&stage.site, &client, &device).await;
    assert!(mark::held(&device).is_empty(), "a row that never happened stays");
    stage.resume();
    stage.ends(Outcome::GoesOn).await;
}
