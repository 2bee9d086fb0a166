use proptest::prelude::*;

use super::*;

const POLL: Duration = Duration::from_secs(30);
const NO_WISH: StreamEnd = StreamEnd::Lost { retry: Duration::ZERO };

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A life that was started, has synced and has a stream.
fn live() -> Life {
    let mut life = Life::new(POLL);
    life.on(Event::Started, 0.5);
    life.on(Event::Connected, 0.5);
    life.on(Event::Synced, 0.5);
    assert_eq!(life.on(Event::Synced, 0.5).last(), Some(&Instruction::Publish(State::Live)));
    life.on(Event::Steady, 0.5);
    life
}

fn waits(todo: &[Instruction], timer: Timer) -> Option<Duration> {
    todo.iter().find_map(|one| match one {
        Instruction::Wait(of, wait) if *of == timer => Some(*wait),
        _ => None,
    })
}

#[test]
fn a_start_syncs_at_once_and_again_when_the_stream_has_come() {
    use Instruction::{OpenStream, Publish, Sync, Wait};
    let mut life = Life::new(POLL);
    assert_eq!(life.on(Event::Started, 0.5), [Sync, OpenStream, Publish(State::Connecting)]);
    assert_eq!(life.on(Event::Connected, 0.5), [Publish(State::Syncing)]);
    assert_eq!(life.on(Event::Synced, 0.5), [Sync]);
    let done = life.on(Event::Synced, 0.5);
    assert_eq!(done, [Wait(Timer::Sync, secs(300)), Publish(State::Live)]);
}

#[test]
fn hints_and_writes_sync_at_once_and_as_one_while_a_sync_is_under_way() {
    for wish in [Event::Hint, Event::LocalWrite, Event::SyncNow] {
        let mut life = live();
        assert_eq!(life.on(wish, 0.5), [Instruction::Sync, Instruction::Publish(State::Syncing)]);
        for _ in 0..5 {
            assert_eq!(life.on(wish, 0.5), []);
        }
        assert_eq!(life.on(Event::Synced, 0.5), [Instruction::Sync]);
        assert_eq!(life.on(Event::Synced, 0.5).last(), Some(&Instruction::Publish(State::Live)));
    }
}

#[test]
fn without_a_stream_it_polls_and_tries_streams_ever_more_rarely() {
    let mut life = Life::new(POLL);
    life.on(Event::Started, 0.0);
    life.on(Event::Synced, 0.0);
    let mut waited = Vec::new();
    for _ in 0..7 {
        let todo = life.on(Event::StreamEnded(StreamEnd::Unusable), 1.0);
        waited.push(waits(&todo, Timer::Stream).unwrap().as_secs());
        assert_eq!(life.on(Event::Due(Timer::Stream), 0.5), [Instruction::OpenStream]);
    }
    assert_eq!(waited, [30, 60, 120, 240, 480, 600, 600]);
    assert_eq!(life.state(), State::Polling);
    assert!(life.on(Event::Due(Timer::Sync), 0.0).contains(&Instruction::Sync));
    let early = waits(&life.on(Event::Synced, 0.0), Timer::Sync);
    life.on(Event::Due(Timer::Sync), 0.0);
    let late = waits(&life.on(Event::Synced, 1.0), Timer::Sync);
    assert_eq!((early, late), (Some(POLL.mul_f64(0.75)), Some(POLL.mul_f64(1.25))));
}

#[test]
fn a_stream_that_ends_hands_over_to_polling_and_comes_back() {
    for end in [NO_WISH, StreamEnd::PingMissed { retry: Duration::ZERO }] {
        let mut life = live();
        let todo = life.on(Event::StreamEnded(end), 1.0);
        assert_eq!(
            (waits(&todo, Timer::Stream), waits(&todo, Timer::Sync)),
            (Some(secs(1)), Some(POLL.mul_f64(1.25)))
        );
        assert_eq!(life.state(), State::Polling);
        life.on(Event::Due(Timer::Stream), 0.5);
        assert!(life.on(Event::Connected, 0.5).contains(&Instruction::Sync));
        life.on(Event::Synced, 0.5);
        assert_eq!(life.state(), State::Live);
    }
}

#[test]
fn a_stream_that_never_gets_steady_is_tried_ever_more_rarely() {
    let mut life = live();
    let mut waited = Vec::new();
    for _ in 0..8 {
        let todo = life.on(Event::StreamEnded(NO_WISH), 1.0);
        waited.push(waits(&todo, Timer::Stream).unwrap().as_secs());
        life.on(Event::Due(Timer::Stream), 0.5);
        life.on(Event::Connected, 0.5);
        life.on(Event::Synced, 0.5);
    }
    assert_eq!(waited, [1, 2, 4, 8, 16, 32, 60, 60]);
    life.on(Event::Steady, 0.5);
    let todo = life.on(Event::StreamEnded(NO_WISH), 1.0);
    assert_eq!(waits(&todo, Timer::Stream), Some(secs(1)));
}

#[test]
fn the_servers_own_wish_is_never_undercut() {
    let mut life = live();
    let todo = life.on(Event::StreamEnded(StreamEnd::Draining { retry: secs(7) }), 0.0);
    assert_eq!(waits(&todo, Timer::Stream), Some(secs(7)));
    for event in [Event::SyncNow, Event::NetworkBack, Event::Paused, Event::Resumed] {
        assert!(!life.on(event, 0.0).contains(&Instruction::OpenStream), "{event:?}");
    }
    assert!(life.on(Event::Due(Timer::Stream), 0.0).contains(&Instruction::OpenStream));

    let mut life = live();
    life.on(Event::Hint, 0.0);
    let todo = life.on(Event::SyncFailed(Failure::Busy { after: Some(secs(20)) }), 0.0);
    assert_eq!(waits(&todo, Timer::Sync), Some(secs(20)));
    for event in [Event::SyncNow, Event::Hint, Event::Paused, Event::Resumed, Event::NetworkBack] {
        assert!(!life.on(event, 0.0).contains(&Instruction::Sync), "{event:?}");
    }
    assert!(life.on(Event::Due(Timer::Sync), 0.0).contains(&Instruction::Sync));
}

#[test]
fn a_failing_sync_backs_off_and_a_good_one_brings_the_stream_back() {
    let mut life = Life::new(POLL);
    life.on(Event::Started, 0.5);
    let mut waited = Vec::new();
    for _ in 0..8 {
        let todo = life.on(Event::SyncFailed(Failure::Offline), 1.0);
        waited.push(waits(&todo, Timer::Sync).unwrap().as_secs());
        assert_eq!(life.state(), State::Offline);
        for wish in [Event::Hint, Event::LocalWrite] {
            assert_eq!(life.on(wish, 0.5), [], "a wish is no sign that the server is back");
        }
        assert!(life.on(Event::Due(Timer::Sync), 0.5).contains(&Instruction::Publish(State::Connecting)));
    }
    assert_eq!(waited, [1, 2, 4, 8, 16, 32, 60, 60]);
    life.on(Event::StreamEnded(NO_WISH), 1.0);
    assert!(life.on(Event::Synced, 0.5).contains(&Instruction::OpenStream));
}

#[test]
fn a_refused_device_stops_until_it_is_enrolled_again() {
    for event in [
        Event::SyncFailed(Failure::Problem(Problem::Unauthorized)),
        Event::StreamEnded(StreamEnd::Unauthorized),
    ] {
        let mut life = live();
        life.on(Event::Hint, 0.5);
        let todo = life.on(event, 0.5);
        assert!(todo.contains(&Instruction::Publish(State::Error(Problem::Unauthorized))), "{todo:?}");
        if matches!(event, Event::StreamEnded(_)) {
            // The sync that was under way still got through.
            assert_eq!(life.on(Event::Synced, 0.5), []);
        }
        for wish in [
            Event::SyncNow,
            Event::Hint,
            Event::LocalWrite,
            Event::Resumed,
            Event::NetworkBack,
            Event::Due(Timer::Sync),
            Event::Due(Timer::Stream),
        ] {
            assert_eq!(life.on(wish, 0.5), [], "{wish:?}");
        }
        let todo = life.on(Event::Enrolled, 0.5);
        assert!(todo.contains(&Instruction::Sync) && todo.contains(&Instruction::OpenStream));
    }
}

#[test]
fn other_problems_are_shown_and_tried_again() {
    let mut life = live();
    life.on(Event::Hint, 0.5);
    let todo = life.on(Event::SyncFailed(Failure::Problem(Problem::Database)), 0.5);
    assert!(waits(&todo, Timer::Sync).is_some());
    assert_eq!(life.state(), State::Error(Problem::Database));
    assert_eq!(life.on(Event::Due(Timer::Sync), 0.5), [Instruction::Sync], "the error stays in sight");
    assert!(life.on(Event::Synced, 0.5).contains(&Instruction::Publish(State::Live)));
}

#[test]
fn pauses_and_lost_networks_rest_and_their_end_tries_at_once() {
    for (gone, back) in [(Event::Paused, Event::Resumed), (Event::NetworkGone, Event::NetworkBack)] {
        let mut life = live();
        assert_eq!(life.on(gone, 0.5), [Instruction::CloseStream, Instruction::Publish(State::Offline)]);
        for event in [Event::LocalWrite, Event::SyncNow, Event::Due(Timer::Sync)] {
            assert_eq!(life.on(event, 0.5), []);
        }
        let todo = life.on(back, 0.5);
        assert!(todo.contains(&Instruction::Sync) && todo.contains(&Instruction::OpenStream), "{todo:?}");

        life.on(gone, 0.5);
        let todo = life.on(back, 0.5);
        let renewed = [Instruction::CancelSync, Instruction::Sync];
        let is_renewed = todo.windows(2).any(|pair| pair == renewed);
        assert_eq!(
            is_renewed,
            back == Event::NetworkBack,
            "it would wait for a network that is gone: {todo:?}"
        );
        let again = life.on(Event::Synced, 0.5).contains(&Instruction::Sync);
        assert_eq!(again, back == Event::Resumed, "that sync began before the pause");
    }
}

#[test]
fn another_network_ends_what_waits_for_the_one_before() {
    let mut life = live();
    assert_eq!(
        life.on(Event::NetworkBack, 0.5),
        [
            Instruction::CloseStream,
            Instruction::Sync,
            Instruction::OpenStream,
            Instruction::Publish(State::Syncing)
        ]
    );
    assert_eq!(
        life.on(Event::NetworkBack, 0.5),
        [Instruction::CloseStream, Instruction::CancelSync, Instruction::Sync, Instruction::OpenStream]
    );
}

/// What a shell does with the instructions, and which events can happen to it.
#[derive(Debug, Default)]
struct Shell {
    syncing: bool,
    streaming: bool,
    sync_wait: Option<Duration>,
    stream_wait: Option<Duration>,
    state: Option<State>,
}

impl Shell {
    fn perform(&mut self, todo: Vec<Instruction>) {
        for one in todo {
            match one {
                Instruction::Sync => {
                    assert!(!std::mem::replace(&mut self.syncing, true), "two syncs at once");
                    self.sync_wait = None;
                }
                Instruction::OpenStream => {
                    assert!(!std::mem::replace(&mut self.streaming, true), "two streams at once");
                    self.stream_wait = None;
                }
                Instruction::CloseStream => assert!(std::mem::take(&mut self.streaming)),
                Instruction::CancelSync => assert!(std::mem::take(&mut self.syncing)),
                Instruction::Wait(Timer::Sync, wait) => self.sync_wait = Some(wait),
                Instruction::Wait(Timer::Stream, wait) => self.stream_wait = Some(wait),
                Instruction::Publish(state) => {
                    assert_ne!(self.state.replace(state), Some(state), "nothing changed");
                }
            }
        }
    }

    fn event(&mut self, choice: u8) -> Option<Event> {
        let after = [None, Some(secs(3)), Some(Duration::MAX)][usize::from(choice) % 3];
        let retry = after.unwrap_or_default();
        let sync_failed = |failure| Some(Event::SyncFailed(failure));
        let ended = |end| Some(Event::StreamEnded(end));
        let event = match choice {
            0..20 => self.syncing.then_some(Event::Synced),
            20..25 => self.syncing.then(|| sync_failed(Failure::Offline)).flatten(),
            25..35 => self.syncing.then(|| sync_failed(Failure::Busy { after })).flatten(),
            35..40 => self.syncing.then(|| sync_failed(Failure::Problem(Problem::Protocol))).flatten(),
            40..42 => self.syncing.then(|| sync_failed(Failure::Problem(Problem::Unauthorized))).flatten(),
            42..60 => self.streaming.then_some(Event::Connected),
            60..70 => self.streaming.then_some(Event::Steady),
            70..80 => self.streaming.then_some(Event::Hint),
            80..90 => self.streaming.then(|| ended(StreamEnd::Lost { retry })).flatten(),
            90..95 => self.streaming.then(|| ended(StreamEnd::PingMissed { retry })).flatten(),
            95..100 => self.streaming.then(|| ended(StreamEnd::Draining { retry })).flatten(),
            100..105 => self.streaming.then(|| ended(StreamEnd::Busy { after })).flatten(),
            105..110 => self.streaming.then(|| ended(StreamEnd::Unusable)).flatten(),
            110..112 => self.streaming.then(|| ended(StreamEnd::Unauthorized)).flatten(),
            112..140 => self.sync_wait.take().map(|_| Event::Due(Timer::Sync)),
            140..170 => self.stream_wait.take().map(|_| Event::Due(Timer::Stream)),
            170..190 => Some(Event::LocalWrite),
            190..200 => Some(Event::SyncNow),
            200..208 => Some(Event::NetworkGone),
            208..220 => Some(Event::NetworkBack),
            220..228 => Some(Event::Paused),
            228..240 => Some(Event::Resumed),
            240.. => Some(Event::Enrolled),
        };
        match event {
            Some(Event::Synced | Event::SyncFailed(_)) => self.syncing = false,
            Some(Event::StreamEnded(_)) => self.streaming = false,
            _ => {}
        }
        event
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn it_never_rests_while_it_is_wanted_and_never_does_two_things_at_once(
        choices in prop::collection::vec((any::<u8>(), 0.0..=1.0_f64), 1..200)
    ) {
        let mut life = Life::new(POLL);
        let mut shell = Shell::default();
        shell.perform(life.on(Event::Started, 0.5));
        for (choice, draw) in choices {
            let Some(event) = shell.event(choice) else { continue };
            shell.perform(life.on(event, draw));
            if life.wanted() {
                prop_assert!(shell.syncing || shell.sync_wait.is_some(), "no sync to come: {life:?}");
                prop_assert!(shell.streaming || shell.stream_wait.is_some(), "no stream to come: {life:?}");
                let longest = LONGEST_WISH + BACKOFF.1.max(UNUSABLE.1);
                prop_assert!(shell.sync_wait.is_none_or(|wait| wait <= longest));
                prop_assert!(shell.stream_wait.is_none_or(|wait| wait <= longest));
            } else {
                prop_assert!(!shell.streaming, "a stream that nobody wants: {life:?}");
            }
            prop_assert_eq!(shell.state, Some(life.state()));
        }
    }

    #[test]
    fn whatever_happened_a_network_and_a_good_server_lead_to_live(
        choices in prop::collection::vec((any::<u8>(), 0.0..=1.0_f64), 0..100)
    ) {
        let mut life = Life::new(POLL);
        let mut shell = Shell::default();
        shell.perform(life.on(Event::Started, 0.5));
        for (choice, draw) in choices {
            if let Some(event) = shell.event(choice) {
                shell.perform(life.on(event, draw));
            }
        }
        for event in [Event::Resumed, Event::NetworkBack, Event::Enrolled] {
            shell.perform(life.on(event, 0.5));
        }
        for _ in 0..10 {
            let greeting = if life.connected { None } else { Some(42) };
            for choice in [Some(112), Some(140), greeting, Some(0)].into_iter().flatten() {
                if let Some(event) = shell.event(choice) {
                    shell.perform(life.on(event, 0.5));
                }
            }
            if life.state() == State::Live {
                break;
            }
        }
        prop_assert_eq!(life.state(), State::Live);
    }
}
