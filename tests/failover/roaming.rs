//! An enrolled device in, one that syncs again and again as its network lets it out, and what it showed.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use posduif_sdk::Device;
use posduif_testkit::eventually;
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{phone::is_passing, site::PATIENCE, watch::Watch, whole::assert_whole};

/// Between two syncs.
const PAUSE: Duration = Duration::from_millis(150);

/// A device in a pocket.
pub struct Roaming {
    pub device: Arc<Device>,
    watch: Watch,
    tally: Arc<Tally>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Tally {
    syncs: AtomicU64,
    /// Syncs that replaced everything: the device had to begin again.
    snapshots: AtomicU32,
}

impl Roaming {
    /// Sets a device out that has had its first snapshot.
    pub fn start(device: Device, file: PathBuf) -> Self {
        let (device, tally, stop) = (Arc::new(device), Arc::new(Tally::default()), CancellationToken::new());
        let task = tokio::spawn(roam(Arc::clone(&device), Arc::clone(&tally), stop.clone()));
        Roaming { device, watch: Watch::start(file), tally, stop, task }
    }

    /// Waits for two more syncs that worked: the second began after this was called.
    pub async fn syncs(&self) {
        let before = self.tally.syncs.load(Ordering::Relaxed);
        eventually(PATIENCE, "a device syncs", async || {
            assert!(!self.task.is_finished(), "{} cannot go on", self.device.username());
            Ok((self.tally.syncs.load(Ordering::Relaxed) >= before + 2).then_some(()))
        })
        .await;
    }

    /// Stops it; none of the states that it showed may have been a broken one. Gives how many these were.
    pub async fn end(self) -> (Arc<Device>, u32, usize) {
        self.stop.cancel();
        self.task.await.unwrap();
        let states = self.watch.take();
        for state in &states {
            assert_whole(&state.rows, self.device.user_id(), self.device.username());
        }
        let snapshots = self.tally.snapshots.load(Ordering::Relaxed);
        (self.device, snapshots, states.len())
    }
}

async fn roam(device: Arc<Device>, tally: Arc<Tally>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match device.sync().await {
            Ok(summary) => {
                tally.snapshots.fetch_add(u32::from(summary.snapshot), Ordering::Relaxed);
                tally.syncs.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                assert!(is_passing(&error), "{} cannot go on by trying again: {error}", device.username());
            }
        }
        sleep(PAUSE).await;
    }
}
