//! What the application may show of the connection, and the stream of its changes.

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::watch;

/// How a device stands with its server, while [`Device::run`](crate::Device::run) runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    pub state: State,
    /// When a sync last went through to its end, also in an earlier process.
    pub last_synced: Option<DateTime<Utc>>,
    /// Local writes that wait for their upload.
    pub pending: u32,
    /// Why the newest sync did not go through; `None` after one that did.
    pub last_error: Option<String>,
}

/// What the device is doing about its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is tried at the moment: `run` does not run, was paused or told that there is no network, or the
    /// newest try reached no server that could answer and the next one waits.
    Offline,
    /// A try is under way, and no server has answered yet.
    Connecting,
    /// Rows travel.
    Syncing,
    /// Everything has arrived, and the server tells at once when there is more.
    Live,
    /// Everything has arrived, and the device asks now and then, because nothing on the way to the server lets
    /// a stream of events through.
    Polling,
    /// The newest sync failed for a reason that time alone will not mend.
    Error(Problem),
}

/// What kind of help is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// The device was revoked or enrolled elsewhere. Nothing more is tried until this file was enrolled again.
    Unauthorized,
    /// The server refused a request or answered what the protocol does not allow. Tried again all the same.
    Protocol,
    /// SQLite failed: the disk is full or the file is damaged. Tried again all the same.
    Database,
}

impl Status {
    pub(crate) fn unknown() -> Self {
        Status { state: State::Offline, last_synced: None, pending: 0, last_error: None }
    }
}

/// The changes of a device's [`Status`], newest first: one that is overtaken by the next is not shown.
#[derive(Clone, Debug)]
pub struct StatusChanges {
    receiver: watch::Receiver<Status>,
}

impl StatusChanges {
    pub(crate) fn new(receiver: watch::Receiver<Status>) -> Self {
        StatusChanges { receiver }
    }

    /// The status now; the next change is a later one.
    pub fn current(&mut self) -> Status {
        self.receiver.borrow_and_update().clone()
    }

    /// Waits until the status differs from the one seen last; `None` once the device is dropped. May be cut off
    /// and called again without missing the newest status.
    pub async fn next(&mut self) -> Option<Status> {
        self.receiver.changed().await.ok()?;
        Some(self.current())
    }
}
