//! The guests of the host half: what they are called, how they are, and where their logs go.

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

/// How many guests there are, in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct States {
    /// Guests whose odyn-net is on the link.
    pub linked: usize,
    /// Of these: those whose program runs.
    pub running: usize,
    /// Of these: those whose program has ended, and whose flows are being delivered.
    pub draining: usize,
}

/// The guests of an [`Outer`](crate::Outer). Clones are handles of the same.
#[derive(Debug, Clone)]
pub struct Guests {
    shared: Arc<GuestsShared>,
}

#[derive(Debug)]
struct GuestsShared {
    registry: Mutex<GuestRegistry>,
    destination: LogDestination,
    states: watch::Sender<States>,
    /// Counts the changes that a snapshot shows.
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

    /// How many there are, in which state, and changes of it.
    pub fn states(&self) -> watch::Receiver<States> {
        self.shared.states.subscribe()
    }

    /// Changes with every change that a snapshot shows, and that is not only a record more.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    fn registry(&self) -> MutexGuard<'_, GuestRegistry> {
        self.shared.registry.lock()
    }

    /// A guest has said how it is.
    fn set_state(&self, key: RunKey, state: GuestState) {
        if let Some(guest) = self.registry().guests.get_mut(&key) {
            info!(guest = guest.label, run = %key.1, %state, "state of a guest");
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
