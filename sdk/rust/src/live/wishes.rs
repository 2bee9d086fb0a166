//! What the application wishes of a running connection in, what changed since the last look out.

use super::event::Event;

/// The wishes as they are now. Levels and counts, not a queue: nothing piles up while nobody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub paused: bool,
    pub network: bool,
    /// How often the system told of a change of the network.
    pub networks: u64,
    /// How often a sync was asked for.
    pub syncs: u64,
    /// How often this handle itself wrote.
    pub writes: u64,
}

impl Default for Wishes {
    fn default() -> Self {
        Wishes { paused: false, network: true, networks: 0, syncs: 0, writes: 0 }
    }
}

impl Wishes {
    /// The events that lead from earlier wishes to these.
    pub(super) fn since(&self, earlier: &Wishes) -> Vec<Event> {
        let mut events = Vec::new();
        if self.paused != earlier.paused {
            events.push(if self.paused { Event::Paused } else { Event::Resumed });
        }
        if self.networks != earlier.networks {
            events.push(if self.network { Event::NetworkBack } else { Event::NetworkGone });
        }
        if self.syncs != earlier.syncs {
            events.push(Event::SyncNow);
        }
        if self.writes != earlier.writes {
            events.push(Event::LocalWrite);
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_an_event() {
        let before = Wishes::default();
        assert_eq!(before.since(&before), []);
        let after = Wishes { paused: true, network: false, networks: 1, syncs: 3, writes: 1 };
        let events = [Event::Paused, Event::NetworkGone, Event::SyncNow, Event::LocalWrite];
        assert_eq!(after.since(&before), events);
        assert_eq!(Wishes { paused: false, ..after }.since(&after), [Event::Resumed]);
        let another = Wishes { networks: 2, ..before };
        assert_eq!(another.since(&before), [Event::NetworkBack], "gone and back between two looks");
    }
}
