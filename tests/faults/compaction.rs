//! A log that is trimmed and compacted all the time, under load, by an ingester that is killed in the middle of it.

use std::time::Duration;

use posduif_testkit::Servers;
use rand::RngExt;

use crate::{
    auditor::Auditor,
    campaign::Campaign,
    device::Device,
    run::{Run, from_environment},
    tenant::{Settings, flush_lsn},
};

/// As little as the configuration allows: every second there is something to trim and to compact.
const RETENTION: &str = "{compact_entries: 100, interval: 1s, max_age: 60s, max_bytes: 8388608}";

#[tokio::test(flavor = "multi_thread")]
async fn devices_hold_what_postgresql_does_although_the_log_is_trimmed_and_compacted_under_them() {
    let run = Run::begin("devices_hold_what_postgresql_does");
    let rounds: u32 = from_environment("POSDUIF_FAULT_COMPACTIONS", 7);
    let mut rng = run.rng(100);
    let settings = Settings { retention: Some(RETENTION), ..Settings::default() };
    let mut campaign = Campaign::prepare(&run, Servers::shared().await, &settings).await;
    let mut ingester = campaign.tenant.ingester().await;
    let begun = campaign.tenant.ready().await;
    campaign.write(&run, 4, Duration::from_millis(40));
    let mut devices = join(&campaign).await;
    let (mut kept, mut expired, mut reached) = (0, 0, begun.compacted);
    let mut trimmed = false;
    // As chance has it, it may take more rounds until both have happened under a device.
    for round in 0..10 * rounds {
        if round >= rounds && trimmed && kept > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(300..1500))).await;
        if round % 3 == 2 {
            ingester.kill9().await;
            ingester.start_again();
        }
        // Some come by while the log changes, some only when all is at rest.
        for device in devices.iter_mut().filter(|_| rng.random_bool(0.5)) {
            device.read_on(&campaign.tenant, &mut run.rng(u64::from(round)), 2).await;
        }
        let rest = campaign.pause().await;
        let expected = campaign.mark_at_rest().await.clone();
        let client = campaign.tenant.database.connect().await;
        let (state, _) = campaign.tenant.reached(flush_lsn(&client).await).await;
        assert_eq!(state.epoch, begun.epoch, "an epoch was opened");
        let mut fresh = join(&campaign).await;
        for (device, fresh) in devices.iter_mut().zip(fresh.drain(..)) {
            let before = device.at();
            if device.read_on(&campaign.tenant, &mut rng, usize::MAX).await {
                device.assert_holds(&expected);
                // It read across a mark that was raised after it had last come by.
                kept += u32::from(before < state.compacted);
            } else {
                expired += 1;
                *device = fresh;
            }
        }
        reached = reached.max(state.compacted);
        trimmed |= state.floor > begun.floor;
        drop(rest);
    }
    campaign.stop().await;
    eprintln!(
        "seed {}: {kept} comparisons across a compaction, {expired} devices trimmed away, {:?}",
        run.seed, campaign.tally
    );
    assert!(reached > begun.compacted && kept > 0, "nothing was compacted under a device");
    assert!(trimmed, "nothing was trimmed");
    drop(ingester);
}

/// A device of each user that has just taken its snapshot.
async fn join(campaign: &Campaign) -> Vec<Device> {
    Auditor::join(&campaign.tenant, &campaign.schema).await.devices()
}
