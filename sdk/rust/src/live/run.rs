//! The life's instructions in, what came of them out: the loop that keeps one device in step.

use std::{collections::VecDeque, future::Future, pin::Pin, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use rusqlite::ErrorCode;
use tokio::{sync::watch, time};

use super::{
    event::{Event, Failure, Instruction, StreamEnd, Timer},
    life::Life,
    outlook::{Lookout, Outlook},
    status::{Problem, State, Status},
    stream::{Heard, Patience, listen},
    wishes::Wishes,
};
use crate::{
    device::Device,
    error::{Error, Result},
    machine::SyncSummary,
};

/// How often the file is asked whether another connection committed; writes through the device's own methods
/// are told at once.
const LOOK: Duration = Duration::from_millis(300);

type Sleep = Pin<Box<time::Sleep>>;

struct Shell<'d> {
    device: &'d Device,
    life: Life,
    sync: Option<BoxFuture<'d, Result<SyncSummary>>>,
    stream: Option<BoxStream<'static, Heard>>,
    sync_timer: Option<Sleep>,
    stream_timer: Option<Sleep>,
    last_event_id: Option<String>,
    newest: Option<i64>,
}

/// Runs until `shutdown` is ready; may be dropped at any point.
pub(crate) async fn run(device: &Device, shutdown: impl Future<Output = ()>) -> Result<()> {
    let _turn = device.turn.try_lock().map_err(|_| Error::Busy)?;
    let _end = End(&device.status);
    let mut wishes = device.wishes.subscribe();
    let mut known = *wishes.borrow_and_update();
    let mut lookout = Some(Lookout::open(device.path())?);
    let mut looks = time::interval(LOOK);
    looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut shell = Shell {
        device,
        life: Life::new(device.poll_interval().await?),
        sync: None,
        stream: None,
        sync_timer: None,
        stream_timer: None,
        last_event_id: None,
        newest: None,
    };
    lookout = shell.look(lookout, &mut VecDeque::new()).await;
    let mut events = VecDeque::from(known.since(&Wishes::default()));
    events.push_back(Event::Started);
    tokio::pin!(shutdown);
    loop {
        while let Some(event) = events.pop_front() {
            shell.handle(event);
        }
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            result = ready(&mut shell.sync) => {
                shell.sync = None;
                if let Ok(interval) = device.poll_interval().await {
                    shell.life.set_poll(interval);
                }
                lookout = shell.look(lookout, &mut events).await;
                events.push_back(shell.synced(result));
            }
            heard = next(&mut shell.stream) => shell.hear(heard, &mut events),
            () = ready(&mut shell.sync_timer) => {
                shell.sync_timer = None;
                events.push_back(Event::Due(Timer::Sync));
            }
            () = ready(&mut shell.stream_timer) => {
                shell.stream_timer = None;
                events.push_back(Event::Due(Timer::Stream));
            }
            changed = wishes.changed() => {
                if changed.is_ok() {
                    let now = *wishes.borrow_and_update();
                    events.extend(now.since(&known));
                    known = now;
                }
            }
            _ = looks.tick(), if !known.paused => lookout = shell.look(lookout, &mut events).await,
        }
    }
}

impl Shell<'_> {
    fn handle(&mut self, event: Event) {
        for instruction in self.life.on(event, rand::random()) {
            match instruction {
                Instruction::Sync => {
                    self.sync_timer = None;
                    self.sync = Some(Box::pin(self.device.sync()));
                }
                Instruction::OpenStream => {
                    self.stream_timer = None;
                    let session = self.device.session();
                    self.stream = Some(listen(session, self.last_event_id.clone(), Patience::default()));
                }
                Instruction::CloseStream => self.stream = None,
                Instruction::CancelSync => self.sync = None,
                Instruction::Wait(Timer::Sync, wait) => {
                    self.sync_timer = Some(Box::pin(time::sleep(wait)));
                }
                Instruction::Wait(Timer::Stream, wait) => {
                    self.stream_timer = Some(Box::pin(time::sleep(wait)));
                }
                Instruction::Publish(state) => {
                    tracing::debug!(?state, device = %self.device.device_id(), "connection");
                    self.publish(|status| status.state = state);
                }
            }
        }
    }

    fn publish(&self, change: impl FnOnce(&mut Status)) {
        self.device.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    fn synced(&self, result: Result<SyncSummary>) -> Event {
        let error = match result {
            Ok(_) => {
                self.publish(|status| status.last_error = None);
                return Event::Synced;
            }
            Err(error) => error,
        };
        tracing::debug!(%error, device = %self.device.device_id(), "a sync did not go through");
        self.publish(|status| status.last_error = Some(error.to_string()));
        let busy = |error: &rusqlite::Error| error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
        Event::SyncFailed(match error {
            // The application holds a transaction open for long.
            Error::Store(error) if busy(&error) => Failure::Busy { after: None },
            Error::Offline(_) => Failure::Offline,
            Error::Retry { after, .. } => Failure::Busy { after },
            Error::Resync | Error::Busy => Failure::Busy { after: None },
            Error::Unauthorized(_) => Failure::Problem(Problem::Unauthorized),
            Error::Rejected { .. } | Error::Protocol(_) => Failure::Problem(Problem::Protocol),
            Error::Unusable(_) | Error::Store(_) => Failure::Problem(Problem::Database),
        })
    }

    fn hear(&mut self, heard: Heard, events: &mut VecDeque<Event>) {
        match heard {
            Heard::Connected => events.push_back(Event::Connected),
            Heard::Hint => events.push_back(Event::Hint),
            Heard::Steady => events.push_back(Event::Steady),
            Heard::Id(id) => self.last_event_id = id,
            Heard::Ended(end) => {
                self.stream = None;
                if end == StreamEnd::Unusable {
                    // It may be the id that something on the way does not like.
                    self.last_event_id = None;
                }
                events.push_back(Event::StreamEnded(end));
            }
        }
    }

    /// Looks at the file on a thread that may block. A file that cannot be read now is looked at again.
    async fn look(&mut self, lookout: Option<Lookout>, events: &mut VecDeque<Event>) -> Option<Lookout> {
        let mut lookout = match lookout {
            Some(lookout) => lookout,
            None => Lookout::open(self.device.path()).ok()?,
        };
        let looked = tokio::task::spawn_blocking(move || (lookout.look(), lookout)).await;
        let (Ok(outlook), lookout) = looked.ok()? else { return None };
        if let Some(Outlook { pending, newest, last_synced }) = outlook {
            self.publish(|status| {
                status.pending = pending;
                status.last_synced = last_synced;
            });
            if newest > self.newest {
                self.newest = newest;
                events.push_back(Event::LocalWrite);
            }
        }
        // Also if nobody committed since: the new credential may have come before the old one was refused.
        if self.life.is_refused() && self.device.renew_session().await.unwrap_or(false) {
            events.push_back(Event::Enrolled);
        }
        Some(lookout)
    }
}

/// Whatever ends the loop, nobody is in touch with the server after it.
struct End<'d>(&'d watch::Sender<Status>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|status| {
            if !matches!(status.state, State::Error(Problem::Unauthorized)) {
                status.state = State::Offline;
            }
        });
    }
}

async fn ready<F: Future + Unpin>(slot: &mut Option<F>) -> F::Output {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn next(stream: &mut Option<BoxStream<'static, Heard>>) -> Heard {
    let heard = match stream {
        Some(stream) => stream.next().await,
        None => None,
    };
    match heard {
        Some(heard) => heard,
        None => std::future::pending().await,
    }
}
