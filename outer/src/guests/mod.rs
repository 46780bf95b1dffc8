//! The guests as their feeds describe them: names, states, and where their logs go.

mod feeds;
mod registry;
mod view;

use std::sync::Arc;
use std::time::SystemTime;

use odyn_proto::GuestState;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tracing::info;

pub use view::{FeedView, GuestView};

use self::registry::{GuestRegistry, RunKey};
use crate::logs::LogDestination;

/// The numbers of guests in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct States {
    /// Guests whose odyn-net is on the link.
    pub linked: usize,
    /// Linked guests whose app runs.
    pub running: usize,
    /// Linked guests whose app has ended and whose flows are being delivered.
    pub draining: usize,
}

/// The guests of one [`Outer`](crate::Outer). Clones share the same table.
#[derive(Debug, Clone)]
pub struct Guests {
    shared: Arc<GuestsShared>,
}

#[derive(Debug)]
struct GuestsShared {
    registry: Mutex<GuestRegistry>,
    destination: LogDestination,
    states: watch::Sender<States>,
    /// Counts the changes that [`Guests::views`] shows.
    changes: watch::Sender<u64>,
}

impl Guests {
    pub(crate) fn new(destination: LogDestination) -> Self {
        Self {
            shared: Arc::new(GuestsShared {
                registry: Mutex::default(),
                destination,
                states: watch::Sender::default(),
                changes: watch::Sender::default(),
            }),
        }
    }

    /// The numbers of guests in each state, and every change of them.
    pub fn states(&self) -> watch::Receiver<States> {
        self.shared.states.subscribe()
    }

    /// Wakes at every change that [`Guests::views`] shows, except for new records.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    fn registry(&self) -> MutexGuard<'_, GuestRegistry> {
        self.shared.registry.lock()
    }

    /// Stores the state that a guest reported.
    fn set_state(&self, key: RunKey, state: GuestState) {
        if let Some(guest) = self.registry().guests.get_mut(&key) {
            info!(guest = guest.label, run = %key.1, %state, "guest state changed");
            guest.state = state;
            guest.since = SystemTime::now();
        }
        self.changed();
    }

    fn leave(&self, key: RunKey) {
        self.registry().leave(key);
        self.changed();
    }

    fn changed(&self) {
        let mut states = States::default();
        for guest in self
            .registry()
            .guests
            .values()
            .filter(|guest| guest.open > 0)
        {
            states.linked += 1;
            match guest.state {
                GuestState::Running => states.running += 1,
                GuestState::Draining => states.draining += 1,
                _ => {}
            }
        }
        self.shared.states.send_if_modified(|old| {
            let changed = *old != states;
            *old = states;
            changed
        });
        self.shared.changes.send_modify(|count| *count += 1);
    }
}
