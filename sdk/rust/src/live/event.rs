//! The language between a connection's life and its shell: what happened, and what to do.

use std::time::Duration;

use super::status::{Problem, State};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The application wants to be in step from now on.
    Started,
    /// The stream is open and the server has greeted.
    Connected,
    /// The stream outlived its greeting: nothing on the way holds it back.
    Steady,
    /// The server says that there is something to fetch.
    Hint,
    StreamEnded(StreamEnd),
    Synced,
    SyncFailed(Failure),
    /// The wait is over.
    Due(Timer),
    /// A local write waits for its upload.
    LocalWrite,
    SyncNow,
    NetworkGone,
    NetworkBack,
    Paused,
    Resumed,
    /// The file has another credential than the one that was refused.
    Enrolled,
}

/// Why there is no stream any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// The connection failed or ended; `retry` is what the server wishes a client to wait then.
    Lost { retry: Duration },
    /// No byte came for longer than two pings.
    PingMissed { retry: Duration },
    /// The server is about to stop and spreads its clients.
    Draining { retry: Duration },
    /// The server cannot take another stream now.
    Busy { after: Option<Duration> },
    /// The server or something on the way to it has no streams, or holds them back.
    Unusable,
    /// The credential is refused.
    Unauthorized,
}

/// Why a sync did not go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Offline,
    Busy { after: Option<Duration> },
    Problem(Problem),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    Sync,
    Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instruction {
    OpenStream,
    CloseStream,
    Sync,
    /// Give up the sync that is under way; nothing of it is reported.
    CancelSync,
    /// Report `Due` after this long; replaces an earlier wait of this timer.
    Wait(Timer, Duration),
    Publish(State),
}
