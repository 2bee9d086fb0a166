//! What happened in, what to do next out: the course of one sync, without I/O and without a clock.
//!
//! First the outbox goes up, then pages come down and are staged until the server has no more, then all of
//! them are applied at once. The shell performs a [`Step`], which has made its effect durable when it reports
//! the event.

use std::time::Duration;

use posduif_model::Lsn;
use serde::Serialize;

use crate::{
    error::Error,
    step::{Event, Instruction, Step},
};

/// The entries of the largest upload.
pub(crate) const UPLOAD_ENTRIES: usize = 100;
/// How often one sync waits because the server asked it to, without getting any further, before it gives up until the
/// next sync.
const WAITS: u32 = 6;
/// The longest wait within a sync.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How many snapshots one sync begins.
const SNAPSHOTS: u32 = 3;

/// What one sync did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SyncSummary {
    /// Items that the server took.
    pub uploaded: usize,
    /// Items that the server refused for good; see [`Device::rejected`](crate::Device::rejected).
    pub rejected: usize,
    /// Items that lost against a newer version; they are listed among the rejected ones too.
    pub superseded: usize,
    /// Row operations that became visible.
    pub received: usize,
    /// Whether everything the device held was replaced.
    pub snapshot: bool,
    /// The position in PostgreSQL's WAL that the local tables now show.
    pub lsn: Option<Lsn>,
}

pub(crate) struct Machine {
    step: Step,
    instructed: bool,
    since: Option<String>,
    complete: bool,
    upload: Upload,
    /// An upload failed in a way that does not concern the download.
    failure: Option<Error>,
    unknown_table: UnknownTable,
    confirmed: bool,
    waits: u32,
    snapshots: u32,
    summary: SyncSummary,
}

struct Upload {
    after: i64,
    limit: usize,
    finished: bool,
}

/// Pages may name a table that is new, or not fit one that was altered; asking for instructions once per sync settles
/// what it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UnknownTable {
    Unseen,
    Asking,
    Asked,
}

impl Machine {
    pub fn new() -> Self {
        Machine {
            step: Step::Instruct,
            instructed: false,
            since: None,
            complete: false,
            upload: Upload { after: 0, limit: UPLOAD_ENTRIES, finished: false },
            failure: None,
            unknown_table: UnknownTable::Unseen,
            confirmed: false,
            waits: 0,
            snapshots: 0,
            summary: SyncSummary::default(),
        }
    }

    pub fn on(&mut self, event: Event) -> Instruction {
        match event {
            Event::Started(progress) => {
                self.since = progress.since;
                self.complete = progress.complete;
                self.instructed = progress.instructed;
                if progress.installed { self.next() } else { self.run(Step::Instruct) }
            }
            Event::Instructed { changed } => {
                self.instructed = true;
                if self.unknown_table == UnknownTable::Asking {
                    self.unknown_table = UnknownTable::Asked;
                }
                if changed {
                    self.start_over();
                }
                self.next()
            }
            Event::Uploaded { upto, taken, superseded, rejected } => {
                self.summary.uploaded += taken;
                self.summary.superseded += superseded;
                self.summary.rejected += rejected;
                match upto {
                    Some(upto) => {
                        self.waits = 0;
                        self.upload.after = upto;
                        self.upload.limit = (self.upload.limit * 2).min(UPLOAD_ENTRIES);
                    }
                    None => self.upload.finished = true,
                }
                self.next()
            }
            Event::Staged { cursor, has_more, unknown_table } => {
                // A server with a limit asks for a wait after every so many pages.
                self.waits = 0;
                self.since = Some(cursor);
                self.complete = !has_more;
                if unknown_table && self.unknown_table == UnknownTable::Unseen {
                    self.unknown_table = UnknownTable::Asking;
                    return self.run(Step::Instruct);
                }
                self.next()
            }
            Event::Unfit(error) => {
                if self.unknown_table == UnknownTable::Unseen {
                    self.unknown_table = UnknownTable::Asking;
                    return self.run(Step::Instruct);
                }
                self.failed(error)
            }
            Event::Applied { received, snapshot, lsn } => {
                self.complete = false;
                self.summary.received += received;
                self.summary.snapshot |= snapshot;
                self.summary.lsn = lsn.or(self.summary.lsn);
                if !self.upload.finished {
                    return self.next();
                }
                self.applied(received)
            }
            Event::Resynced => {
                self.start_over();
                self.instructed = false;
                self.run(Step::Instruct)
            }
            Event::Waited => Instruction::Do(self.step.clone()),
            Event::Failed(error) => self.failed(error),
        }
    }

    fn run(&mut self, step: Step) -> Instruction {
        self.step = step.clone();
        Instruction::Do(step)
    }

    fn next(&mut self) -> Instruction {
        if self.complete {
            self.run(Step::Apply)
        } else if !self.upload.finished {
            self.run(Step::Upload { after: self.upload.after, limit: self.upload.limit })
        } else if !self.instructed {
            self.run(Step::Instruct)
        } else {
            self.run(Step::Fetch { since: self.since.clone() })
        }
    }

    fn start_over(&mut self) {
        self.since = None;
        self.complete = false;
        self.upload.after = 0;
        self.upload.finished = self.failure.is_some();
    }

    /// After new rows one more page is asked for: sending the cursor back tells the server that they arrived.
    fn applied(&mut self, received: usize) -> Instruction {
        if received > 0 && !self.confirmed {
            self.confirmed = true;
            return self.next();
        }
        match self.failure.take() {
            Some(error) => Instruction::Fail(error),
            None => Instruction::Done(self.summary.clone()),
        }
    }

    fn failed(&mut self, error: Error) -> Instruction {
        match (&self.step, believed(error)) {
            (_, Error::Retry { after: Some(after), .. }) if self.waits < WAITS && after <= LONGEST_WAIT => {
                self.waits += 1;
                Instruction::Wait(after)
            }
            (Step::Fetch { since }, error)
                if self.snapshots < SNAPSHOTS && refuses_cursor(since.as_deref(), &error) =>
            {
                self.snapshots += 1;
                self.run(Step::Resync)
            }
            (Step::Upload { after, limit }, Error::Rejected { code, message }) => {
                if *limit > 1 {
                    self.upload.limit = limit / 2;
                    self.next()
                } else {
                    let after = *after;
                    self.run(Step::Reject { after, code, message })
                }
            }
            (
                Step::Upload { .. } | Step::Reject { .. },
                error @ (Error::Retry { .. } | Error::Protocol(_) | Error::Store(_) | Error::Unusable(_)),
            ) => {
                self.failure = Some(error);
                self.upload.finished = true;
                self.next()
            }
            (_, error) => Instruction::Fail(error),
        }
    }
}

/// Only two refusals of a whole request speak of what is in it. The others say that it came to the wrong place,
/// and what it carries must outlive that.
fn believed(error: Error) -> Error {
    match error {
        Error::Rejected { code, message }
            if !matches!(code.as_str(), "VALIDATION_ERROR" | "PAYLOAD_TOO_LARGE") =>
        {
            Error::Retry { after: None, cause: format!("{message} ({code})") }
        }
        other => other,
    }
}

/// Whether a page cannot be had with this cursor but may be with `start`.
fn refuses_cursor(since: Option<&str>, error: &Error) -> bool {
    match error {
        Error::Resync => true,
        Error::Rejected { code, .. } => since.is_some() && code == "VALIDATION_ERROR",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Progress;

    fn step(instruction: Instruction) -> Step {
        match instruction {
            Instruction::Do(step) => step,
            other => panic!("{other:?}"),
        }
    }

    fn started(since: Option<&str>, complete: bool) -> Event {
        Event::Started(Progress {
            installed: true,
            instructed: true,
            since: since.map(str::to_owned),
            complete,
        })
    }

    fn staged(cursor: &str, has_more: bool) -> Event {
        Event::Staged { cursor: cursor.to_owned(), has_more, unknown_table: false }
    }

    fn uploaded(upto: Option<i64>) -> Event {
        Event::Uploaded { upto, taken: upto.map_or(0, |_| 1), superseded: 0, rejected: 0 }
    }

    fn applied(received: usize) -> Event {
        Event::Applied { received, snapshot: false, lsn: Some(Lsn::new(9)) }
    }

    fn fetch(since: &str) -> Step {
        Step::Fetch { since: Some(since.to_owned()) }
    }

    fn retry(after: Option<u64>) -> Event {
        Event::Failed(Error::Retry { after: after.map(Duration::from_secs), cause: "busy".to_owned() })
    }

    #[test]
    fn a_new_device_asks_for_instructions_then_for_a_snapshot() {
        let mut machine = Machine::new();
        assert_eq!(step(machine.on(Event::Started(Progress::default()))), Step::Instruct);
        let upload = step(machine.on(Event::Instructed { changed: true }));
        assert_eq!(upload, Step::Upload { after: 0, limit: UPLOAD_ENTRIES });
        assert_eq!(step(machine.on(uploaded(None))), Step::Fetch { since: None });
        assert_eq!(step(machine.on(staged("a", true))), fetch("a"));
        assert_eq!(step(machine.on(staged("b", false))), Step::Apply);
        let confirm = step(machine.on(Event::Applied { received: 3, snapshot: true, lsn: None }));
        assert_eq!(confirm, fetch("b"));
        assert_eq!(step(machine.on(staged("b", false))), Step::Apply);
        match machine.on(applied(0)) {
            Instruction::Done(summary) => {
                assert_eq!((summary.received, summary.snapshot, summary.lsn), (3, true, Some(Lsn::new(9))));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn uploads_go_on_until_nothing_is_pending() {
        let mut machine = Machine::new();
        machine.on(started(Some("a"), false));
        let next = step(machine.on(uploaded(Some(7))));
        assert_eq!(next, Step::Upload { after: 7, limit: UPLOAD_ENTRIES });
        assert_eq!(step(machine.on(uploaded(None))), fetch("a"));
    }

    #[test]
    fn a_complete_catch_up_is_applied_before_anything_else() {
        let mut machine = Machine::new();
        assert_eq!(step(machine.on(started(Some("a"), true))), Step::Apply);
        assert!(matches!(step(machine.on(applied(5))), Step::Upload { .. }));
    }

    #[test]
    fn a_busy_server_that_never_quiets_does_not_hold_a_sync_for_ever() {
        let mut machine = Machine::new();
        machine.on(started(Some("a"), false));
        machine.on(uploaded(None));
        machine.on(staged("b", false));
        assert_eq!(step(machine.on(applied(1))), fetch("b"));
        machine.on(staged("c", false));
        assert!(matches!(machine.on(applied(1)), Instruction::Done(_)));
    }

    #[test]
    fn tables_that_may_be_out_of_date_hold_no_upload_up() {
        let mut machine = Machine::new();
        let progress = Progress { installed: true, ..Progress::default() };
        assert!(matches!(step(machine.on(Event::Started(progress))), Step::Upload { .. }));
        assert_eq!(step(machine.on(uploaded(None))), Step::Instruct);
        let next = step(machine.on(Event::Instructed { changed: false }));
        assert_eq!(next, Step::Fetch { since: None });
    }

    #[test]
    fn an_expired_cursor_uploads_again_before_the_snapshot() {
        let mut machine = Machine::new();
        machine.on(started(Some("old"), false));
        machine.on(uploaded(Some(4)));
        machine.on(uploaded(None));
        assert_eq!(step(machine.on(Event::Failed(Error::Resync))), Step::Resync);
        assert_eq!(step(machine.on(Event::Resynced)), Step::Instruct);
        let upload = step(machine.on(Event::Instructed { changed: false }));
        assert_eq!(upload, Step::Upload { after: 0, limit: UPLOAD_ENTRIES });
        assert_eq!(step(machine.on(uploaded(None))), Step::Fetch { since: None });
    }

    #[test]
    fn a_server_that_expires_every_cursor_is_given_up() {
        let mut machine = Machine::new();
        machine.on(started(None, false));
        machine.on(uploaded(None));
        for _ in 0..SNAPSHOTS {
            assert_eq!(step(machine.on(Event::Failed(Error::Resync))), Step::Resync);
            machine.on(Event::Resynced);
            machine.on(Event::Instructed { changed: false });
            machine.on(uploaded(None));
        }
        assert!(matches!(machine.on(Event::Failed(Error::Resync)), Instruction::Fail(Error::Resync)));
    }

    #[test]
    fn a_server_that_opens_no_cursor_of_its_own_is_given_up() {
        let refused = || {
            Event::Failed(Error::Rejected { code: "VALIDATION_ERROR".to_owned(), message: "bad".to_owned() })
        };
        let mut machine = Machine::new();
        machine.on(started(Some("a"), false));
        machine.on(uploaded(None));
        for _ in 0..SNAPSHOTS {
            assert_eq!(step(machine.on(refused())), Step::Resync);
            assert_eq!(step(machine.on(Event::Resynced)), Step::Instruct);
            machine.on(Event::Instructed { changed: false });
            machine.on(uploaded(None));
            machine.on(staged("s", true));
        }
        assert!(matches!(machine.on(refused()), Instruction::Fail(Error::Rejected { .. })));
    }

    #[test]
    fn the_server_may_ask_to_wait_a_few_times_but_not_for_ever() {
        let mut machine = Machine::new();
        machine.on(started(Some("a"), false));
        machine.on(uploaded(None));
        for _ in 0..WAITS {
            assert!(matches!(machine.on(retry(Some(1))), Instruction::Wait(d) if d.as_secs() == 1));
            assert_eq!(step(machine.on(Event::Waited)), fetch("a"));
        }
        assert!(matches!(machine.on(retry(Some(1))), Instruction::Fail(Error::Retry { .. })));

        let mut machine = Machine::new();
        machine.on(started(Some("a"), false));
        machine.on(uploaded(None));
        assert!(matches!(machine.on(retry(Some(3600))), Instruction::Fail(Error::Retry { .. })));
    }

    #[test]
    fn a_sync_that_gets_further_waits_as_often_as_it_is_asked_to() {
        let mut machine = Machine::new();
        machine.on(started(Some("a"), false));
        machine.on(uploaded(None));
        for _ in 0..10 * WAITS {
            assert!(matches!(machine.on(retry(Some(1))), Instruction::Wait(_)));
            machine.on(Event::Waited);
            machine.on(staged("b", true));
        }
    }

    #[test]
    fn a_failing_upload_does_not_block_the_download_and_is_reported_after_it() {
        let mut machine = Machine::new();
        machine.on(started(Some("a"), false));
        assert_eq!(step(machine.on(retry(None))), fetch("a"));
        machine.on(staged("b", false));
        assert!(matches!(machine.on(applied(0)), Instruction::Fail(Error::Retry { .. })));
    }

    #[test]
    fn without_a_network_the_sync_ends_at_once() {
        let mut machine = Machine::new();
        machine.on(started(Some("a"), false));
        let failed = machine.on(Event::Failed(Error::Offline("no route".to_owned())));
        assert!(matches!(failed, Instruction::Fail(Error::Offline(_))));
    }

    #[test]
    fn a_refused_upload_is_halved_until_the_poison_stands_alone() {
        let refused = || {
            Event::Failed(Error::Rejected { code: "VALIDATION_ERROR".to_owned(), message: "bad".to_owned() })
        };
        let mut machine = Machine::new();
        machine.on(started(Some("a"), false));
        let mut limits = Vec::new();
        let reject = loop {
            match step(machine.on(refused())) {
                Step::Upload { after: 0, limit } => limits.push(limit),
                other => break other,
            }
        };
        assert_eq!(limits, [50, 25, 12, 6, 3, 1]);
        let expected =
            Step::Reject { after: 0, code: "VALIDATION_ERROR".to_owned(), message: "bad".to_owned() };
        assert_eq!(reject, expected);
        let next = machine.on(Event::Uploaded { upto: Some(1), taken: 0, superseded: 0, rejected: 1 });
        assert_eq!(step(next), Step::Upload { after: 1, limit: 2 });
    }

    #[test]
    fn an_unknown_table_under_new_rules_starts_over_so_that_its_older_rows_come_too() {
        let unknown = || Event::Staged { cursor: "b".to_owned(), has_more: true, unknown_table: true };
        let mut machine = Machine::new();
        machine.on(started(Some("a"), false));
        machine.on(uploaded(None));
        assert_eq!(step(machine.on(unknown())), Step::Instruct);
        assert!(matches!(
            step(machine.on(Event::Instructed { changed: true })),
            Step::Upload { after: 0, .. }
        ));
        assert_eq!(step(machine.on(uploaded(None))), Step::Fetch { since: None });

        let mut machine = Machine::new();
        machine.on(started(Some("a"), false));
        machine.on(uploaded(None));
        machine.on(unknown());
        assert_eq!(step(machine.on(Event::Instructed { changed: false })), fetch("b"));
        assert_eq!(step(machine.on(unknown())), fetch("b"));
    }
}
