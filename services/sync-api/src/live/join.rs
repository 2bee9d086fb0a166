//! What a reader resumes from and the state of the log in, where it begins and what it has missed out; no I/O.

use posduif_changelog::LogState;
use posduif_model::{
    Lsn,
    cursor::{Cursor, InvalidCursor, Resume},
    rule::RulesHash,
};

use crate::sync::{
    SyncError,
    stage::{self, Plan, Since},
};

/// What a reader says of where it is.
#[derive(Debug)]
pub enum Resumption {
    /// Nothing: it hears what comes.
    Now,
    /// Its cursor, if it is one of this server for this reader.
    Cursor(Result<Cursor, InvalidCursor>),
}

/// Where a reader begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Where the reader goes on if it gets nothing on this connection.
    pub base: Cursor,
    pub missed: Missed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    Nothing,
    /// Whatever lies after this commit.
    After(Lsn),
    /// The reader is in the middle of a snapshot: it must sync, and rows of the log are nothing for it.
    Snapshot,
    /// The log no longer continues what the reader has.
    Everything,
}

/// The cursor of a reader that has everything up to `commit`.
pub fn cursor_at(state: &LogState, commit: Lsn) -> Cursor {
    let (epoch, rules, timeline) = (state.epoch, state.rules.clone(), state.timeline);
    Cursor { epoch, rules, timeline, at: Resume::Stream { commit, confirms: None, goal: None } }
}

/// Decides where a reader begins.
///
/// # Errors
/// `NotReady` while the log cannot tell.
pub fn start(from: Resumption, state: &LogState, rules: &RulesHash) -> Result<Start, SyncError> {
    let now = || cursor_at(state, state.watermark.commit);
    if state.rules != *rules {
        return Err(SyncError::NotReady("the log is written by other rules than this server's"));
    }
    let cursor = match from {
        Resumption::Now => return Ok(Start { base: now(), missed: Missed::Nothing }),
        Resumption::Cursor(Err(_)) => return Ok(Start { base: now(), missed: Missed::Everything }),
        Resumption::Cursor(Ok(cursor)) => cursor,
    };
    let missed = match stage::plan(&Since::Cursor(cursor.clone()), state, rules) {
        Ok(Plan::Nothing) => Missed::Nothing,
        Ok(Plan::Log { after, replay: None, .. }) => Missed::After(after),
        // Of a snapshot that waits for the log, too.
        Ok(_) | Err(SyncError::NotReady(_)) => Missed::Snapshot,
        Err(SyncError::Expired) => return Ok(Start { base: now(), missed: Missed::Everything }),
        Err(error) => return Err(error),
    };
    Ok(Start { base: cursor, missed })
}
