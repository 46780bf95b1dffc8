//! The guests that are connected, and what each of them shares between its connections.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use odyn_link::Peer;

use crate::resolver::Share;

/// Who is connected.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    present: Mutex<HashMap<Peer, Guest>>,
}

#[derive(Debug, Default)]
struct Guest {
    connections: usize,
    lookups: Share,
}

/// One connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Present<'a> {
    presence: &'a Presence,
    peer: Peer,
}

impl Presence {
    /// A guest has connected.
    pub(crate) fn enter(&self, peer: Peer) -> Present<'_> {
        let mut present = self.lock();
        present.entry(peer).or_default().connections += 1;
        Present {
            presence: self,
            peer,
        }
    }

    /// What this guest may ask of a resolver.
    pub(crate) fn lookups(&self, peer: &Peer) -> Share {
        let present = self.lock();
        present
            .get(peer)
            .map(|guest| guest.lookups.clone())
            .unwrap_or_default()
    }

    /// Guests, and their connections.
    pub(crate) fn count(&self) -> (usize, usize) {
        let present = self.lock();
        let connections = present.values().map(|guest| guest.connections).sum();
        (present.len(), connections)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Peer, Guest>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        let mut present = self.presence.lock();
        if let Some(guest) = present.get_mut(&self.peer) {
            guest.connections -= 1;
            if guest.connections == 0 {
                present.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_there_while_it_has_a_connection() {
        let presence = Presence::default();
        let peer = Peer::Vsock { cid: 7 };
        let first = presence.enter(peer);
        let second = presence.enter(peer);
        let other = presence.enter(Peer::Vsock { cid: 8 });
        assert_eq!(presence.count(), (2, 3));
        drop(first);
        drop(other);
        assert_eq!(presence.count(), (1, 1));
        drop(second);
        assert_eq!(presence.count(), (0, 0));
    }
}
