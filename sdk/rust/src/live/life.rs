//! What happened in, what to do next out: the life of a device's connection, without I/O, clock or randomness.
//!
//! Two tries run beside each other: a sync, which brings every row, and a stream, on which the server only says
//! when a sync is worth while. Each is under way or waits for a moment: as long as the application wants the
//! device in step, neither ever rests. A sync alone is enough to be right; the stream makes it quick.

use std::time::Duration;

use super::{
    backoff::Backoff,
    event::{Event, Failure, Instruction, StreamEnd, Timer},
    status::{Problem, State},
};

/// The first ceiling of a wait after a failure, and the last one.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The same where streams do not get through: that changes with the network, or not at all.
const UNUSABLE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));
/// The longest wait that a server is believed to want.
const LONGEST_WISH: Duration = Duration::from_secs(3600);
/// How much less often a device asks that would be told, in case a hint gets lost all the same.
const LIVE_POLLS: u32 = 10;

/// One of the two tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Try {
    /// The application does not want it at the moment.
    Resting,
    UnderWay,
    /// The next one comes when the timer says so, or when it is asked for.
    Waiting(Patience),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// Nothing is wrong: any wish ends the wait.
    Routine,
    /// A try failed: only the application or a sign of the network ends the wait.
    Backoff,
    /// The server named the moment: nothing ends the wait before.
    Firm,
}

/// What came of the newest sync or greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Nothing,
    Reached,
    Synced,
    Unreached,
    Problem(Problem),
}

#[derive(Debug)]
pub(super) struct Life {
    started: bool,
    paused: bool,
    network: bool,
    unauthorized: bool,
    sync: Try,
    /// Something came up that the sync under way may have missed.
    again: bool,
    stream: Try,
    connected: bool,
    last: Last,
    poll: Duration,
    sync_backoff: Backoff,
    stream_backoff: Backoff,
    unusable: Backoff,
    published: Option<State>,
}

impl Life {
    /// `poll` is how often a device asks that is not told.
    pub fn new(poll: Duration) -> Self {
        Life {
            started: false,
            paused: false,
            network: true,
            unauthorized: false,
            sync: Try::Resting,
            again: false,
            stream: Try::Resting,
            connected: false,
            last: Last::Nothing,
            poll,
            sync_backoff: Backoff::new(BACKOFF.0, BACKOFF.1),
            stream_backoff: Backoff::new(BACKOFF.0, BACKOFF.1),
            unusable: Backoff::new(UNUSABLE.0, UNUSABLE.1),
            published: None,
        }
    }

    /// The server's wish may change with the app instructions; it counts from the next wait on.
    pub fn set_poll(&mut self, poll: Duration) {
        self.poll = poll;
    }

    /// Whether nothing more is tried before the device was enrolled again.
    pub fn is_refused(&self) -> bool {
        self.unauthorized
    }

    /// `draw` is a random number from 0 to 1, another one for each event.
    pub fn on(&mut self, event: Event, draw: f64) -> Vec<Instruction> {
        let mut todo = Vec::new();
        self.react(event, draw, &mut todo);
        let state = self.state();
        if self.published.replace(state) != Some(state) {
            todo.push(Instruction::Publish(state));
        }
        todo
    }

    fn react(&mut self, event: Event, draw: f64, todo: &mut Vec<Instruction>) {
        match event {
            Event::Started => {
                self.started = true;
                self.begin_again(todo);
            }
            Event::Paused => {
                self.paused = true;
                self.rest(todo);
            }
            Event::NetworkGone => {
                self.network = false;
                self.rest(todo);
            }
            Event::Resumed => {
                self.paused = false;
                self.begin_again(todo);
            }
            Event::NetworkBack => {
                self.network = true;
                self.forgive();
                self.give_up(todo);
                self.begin_again(todo);
            }
            Event::Enrolled => {
                self.unauthorized = false;
                self.last = Last::Nothing;
                self.forgive();
                self.begin_again(todo);
            }
            Event::SyncNow => self.begin_again(todo),
            Event::Hint | Event::LocalWrite => self.wish(todo),
            Event::Connected => {
                if self.stream == Try::UnderWay {
                    self.connected = true;
                    if matches!(self.last, Last::Nothing | Last::Unreached) {
                        self.last = Last::Reached;
                    }
                    self.begin_again(todo);
                }
            }
            Event::Steady => {
                self.stream_backoff.reset();
                self.unusable.reset();
            }
            Event::StreamEnded(end) => self.stream_ended(end, draw, todo),
            Event::Synced => self.synced(draw, todo),
            Event::SyncFailed(failure) => self.sync_failed(failure, draw, todo),
            Event::Due(Timer::Sync) => {
                if let Try::Waiting(_) = self.sync {
                    self.sync = Try::Resting;
                    self.try_sync(todo);
                }
            }
            Event::Due(Timer::Stream) => {
                if let Try::Waiting(_) = self.stream {
                    self.stream = Try::Resting;
                    self.try_stream(todo);
                }
            }
        }
    }

    fn wanted(&self) -> bool {
        self.started && !self.paused && self.network && !self.unauthorized
    }

    /// Starts what does not run; a moment that the server named holds. A sync that is under way may have begun too
    /// early and is followed by another.
    fn begin_again(&mut self, todo: &mut Vec<Instruction>) {
        self.again |= self.sync == Try::UnderWay;
        self.try_sync(todo);
        self.try_stream(todo);
    }

    fn wish(&mut self, todo: &mut Vec<Instruction>) {
        match self.sync {
            Try::UnderWay => self.again = true,
            Try::Waiting(Patience::Routine) => self.try_sync(todo),
            Try::Resting | Try::Waiting(_) => {}
        }
    }

    fn try_sync(&mut self, todo: &mut Vec<Instruction>) {
        let ready = !matches!(self.sync, Try::UnderWay | Try::Waiting(Patience::Firm));
        if ready && self.wanted() {
            self.sync = Try::UnderWay;
            self.again = false;
            todo.push(Instruction::Sync);
        }
    }

    fn try_stream(&mut self, todo: &mut Vec<Instruction>) {
        let ready = !matches!(self.stream, Try::UnderWay | Try::Waiting(Patience::Firm));
        if ready && self.wanted() {
            self.stream = Try::UnderWay;
            todo.push(Instruction::OpenStream);
        }
    }

    /// A sync that is under way ends by itself; it needs no network that is not there to do so.
    fn rest(&mut self, todo: &mut Vec<Instruction>) {
        if self.stream == Try::UnderWay {
            todo.push(Instruction::CloseStream);
        }
        self.connected = false;
        self.again = false;
        for one in [&mut self.sync, &mut self.stream] {
            if matches!(one, Try::Waiting(Patience::Routine | Patience::Backoff)) {
                *one = Try::Resting;
            }
        }
        if self.stream == Try::UnderWay {
            self.stream = Try::Resting;
        }
    }

    /// What is under way waits for a network that may be gone, and would do so for long.
    fn give_up(&mut self, todo: &mut Vec<Instruction>) {
        self.rest(todo);
        if self.sync == Try::UnderWay {
            self.sync = Try::Resting;
            todo.push(Instruction::CancelSync);
        }
    }

    fn forgive(&mut self) {
        for backoff in [&mut self.sync_backoff, &mut self.stream_backoff, &mut self.unusable] {
            backoff.reset();
        }
    }

    fn synced(&mut self, draw: f64, todo: &mut Vec<Instruction>) {
        let recovered = self.sync_backoff.failing();
        self.sync_backoff.reset();
        self.last = Last::Synced;
        self.sync = Try::Resting;
        if !self.wanted() {
            return;
        }
        if self.again {
            self.try_sync(todo);
        } else {
            self.wait_routine(draw, todo);
        }
        if recovered && self.stream == Try::Waiting(Patience::Backoff) {
            self.try_stream(todo);
        }
    }

    fn sync_failed(&mut self, failure: Failure, draw: f64, todo: &mut Vec<Instruction>) {
        self.sync = Try::Resting;
        self.again = false;
        self.last = match failure {
            Failure::Offline | Failure::Busy { .. } => Last::Unreached,
            Failure::Problem(problem) => Last::Problem(problem),
        };
        let after = match failure {
            Failure::Problem(Problem::Unauthorized) => return self.refused(todo),
            Failure::Busy { after } => after,
            Failure::Offline | Failure::Problem(_) => None,
        };
        let wait = self.sync_backoff.fail(draw);
        if let Some(after) = after {
            self.sync = Try::Waiting(Patience::Firm);
            todo.push(Instruction::Wait(Timer::Sync, after.min(LONGEST_WISH) + wait));
        } else if self.wanted() {
            self.sync = Try::Waiting(Patience::Backoff);
            todo.push(Instruction::Wait(Timer::Sync, wait));
        }
    }

    fn refused(&mut self, todo: &mut Vec<Instruction>) {
        self.unauthorized = true;
        self.last = Last::Problem(Problem::Unauthorized);
        self.rest(todo);
    }

    fn stream_ended(&mut self, end: StreamEnd, draw: f64, todo: &mut Vec<Instruction>) {
        if self.stream != Try::UnderWay {
            return;
        }
        self.stream = Try::Resting;
        let was_told = std::mem::take(&mut self.connected);
        let (patience, wait) = match end {
            StreamEnd::Unauthorized => return self.refused(todo),
            StreamEnd::Lost { retry } | StreamEnd::PingMissed { retry } => {
                (Patience::Backoff, retry.min(BACKOFF.1) + self.stream_backoff.fail(draw))
            }
            StreamEnd::Draining { retry: after } | StreamEnd::Busy { after: Some(after) } => {
                (Patience::Firm, after.min(LONGEST_WISH) + self.stream_backoff.fail(draw))
            }
            StreamEnd::Busy { after: None } => (Patience::Backoff, self.stream_backoff.fail(draw)),
            StreamEnd::Unusable => (Patience::Backoff, self.unusable.fail(draw)),
        };
        self.stream = Try::Waiting(patience);
        todo.push(Instruction::Wait(Timer::Stream, wait));
        if was_told && self.sync == Try::Waiting(Patience::Routine) {
            // The wait was chosen for a device that is told.
            self.wait_routine(draw, todo);
        }
    }

    fn wait_routine(&mut self, draw: f64, todo: &mut Vec<Instruction>) {
        let often = if self.connected { LIVE_POLLS } else { 1 };
        let spread = 0.75 + draw.clamp(0.0, 1.0) / 2.0;
        self.sync = Try::Waiting(Patience::Routine);
        todo.push(Instruction::Wait(Timer::Sync, self.poll.saturating_mul(often).mul_f64(spread)));
    }

    fn state(&self) -> State {
        match (self.last, self.sync) {
            _ if self.unauthorized => State::Error(Problem::Unauthorized),
            _ if !self.wanted() => State::Offline,
            (Last::Problem(problem), _) => State::Error(problem),
            (Last::Nothing | Last::Unreached, Try::UnderWay) => State::Connecting,
            (Last::Reached | Last::Synced, Try::UnderWay) => State::Syncing,
            (Last::Nothing | Last::Unreached | Last::Reached, _) => State::Offline,
            (Last::Synced, _) if self.connected => State::Live,
            (Last::Synced, _) => State::Polling,
        }
    }
}

#[cfg(test)]
mod tests;
