//! A standby that lacks what devices already hold takes the primary's place.

use crate::{
    mark::{self, GHOST},
    stage::{Outcome, Set, Stage, report},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_devices_hold_and_the_promoted_standby_lacks_goes_from_them() {
    let mut stage = Stage::begin("what_devices_hold_and_the_promoted_standby_lacks").await;
    let standby = stage.standby(Set { synchronous: false, keeps_slots: true, waits: false }).await;
    standby.link.black_hole(true);
    mark::leave(&stage.session().await, GHOST).await;
    mark::arrives(&stage, GHOST).await;
    let took = stage.fail_over(standby).await;
    report("asynchronous standby that was behind", took);
    let status = stage.status().await;
    let newest = &status["database"]["epoch_history"][0];
    assert_eq!(newest["reason"], "timeline_forked", "{status}");
    let devices = stage.devices();
    let lost = stage.ends(Outcome::NewEpoch("timeline_forked")).await;
    assert!(lost > 0, "nothing was lost; the test proves nothing");
    assert!(devices.iter().all(|device| mark::held(device).is_empty()), "a row that never happened stays");
}
