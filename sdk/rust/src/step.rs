//! The language between the machine and its shell: what to do next, and what came of it.

use std::time::Duration;

use posduif_model::Lsn;

use crate::{error::Error, machine::SyncSummary};

/// How far the database had come when the sync started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The tables exist, so there is something to upload.
    pub installed: bool,
    /// Nothing said since that the tables may be out of date.
    pub instructed: bool,
    /// The newest staged cursor, else the applied one; none asks for a snapshot.
    pub since: Option<String>,
    /// The staged pages end a catch-up.
    pub complete: bool,
}

#[derive(Debug)]
pub(crate) enum Event {
    Started(Progress),
    /// The tables are what the server says. `changed`: they were not before, and the step began a resync.
    Instructed {
        changed: bool,
    },
    /// Everything up to entry `upto` has been looked at; `None`: nothing was pending.
    Uploaded {
        upto: Option<i64>,
        taken: usize,
        superseded: usize,
        rejected: usize,
    },
    Staged {
        cursor: String,
        has_more: bool,
        unknown_table: bool,
    },
    /// The page cannot be applied to the tables as they are.
    Unfit(Error),
    Applied {
        received: usize,
        snapshot: bool,
        lsn: Option<Lsn>,
    },
    Resynced,
    Waited,
    Failed(Error),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Fetch the app instructions and create or alter the local tables; a change begins a resync too.
    Instruct,
    /// Send up to `limit` pending entries younger than `after` and store the receipt.
    Upload { after: i64, limit: usize },
    /// Give up the first pending entry younger than `after`, which the server refuses even alone.
    Reject { after: i64, code: String, message: String },
    /// Ask for the page after `since` and stage it.
    Fetch { since: Option<String> },
    /// Make all staged pages visible in one transaction.
    Apply,
    /// Forget the cursor, the staged pages and that the tables are up to date; what was sent but not seen again
    /// becomes pending.
    Resync,
}

#[derive(Debug)]
pub(crate) enum Instruction {
    Do(Step),
    Wait(Duration),
    Done(SyncSummary),
    Fail(Error),
}
