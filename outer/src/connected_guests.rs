//! The guests that are connected, and what each of them shares between its connections.

use std::collections::HashMap;

use odyn_link::Peer;
use parking_lot::{Mutex, MutexGuard};

use crate::resolver::LookupShare;

/// Who is connected.
#[derive(Debug, Default)]
pub(crate) struct ConnectedGuests {
    present: Mutex<HashMap<Peer, ConnectedGuest>>,
}

#[derive(Debug, Default)]
struct ConnectedGuest {
    connections: usize,
    lookups: LookupShare,
}

/// One connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionGuard<'a> {
    connected_guests: &'a ConnectedGuests,
    peer: Peer,
}

impl ConnectedGuests {
    /// A guest has connected.
    pub(crate) fn enter(&self, peer: Peer) -> ConnectionGuard<'_> {
        let mut present = self.lock();
        present.entry(peer).or_default().connections += 1;
        ConnectionGuard {
            connected_guests: self,
            peer,
        }
    }

    /// What this guest may ask of a resolver.
    pub(crate) fn lookups(&self, peer: &Peer) -> LookupShare {
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

    fn lock(&self) -> MutexGuard<'_, HashMap<Peer, ConnectedGuest>> {
        self.present.lock()
    }
}

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        let mut present = self.connected_guests.lock();
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
        let connected_guests = ConnectedGuests::default();
        let peer = Peer::Vsock { cid: 7 };
        let first = connected_guests.enter(peer);
        let second = connected_guests.enter(peer);
        let other = connected_guests.enter(Peer::Vsock { cid: 8 });
        assert_eq!(connected_guests.count(), (2, 3));
        drop(first);
        drop(other);
        assert_eq!(connected_guests.count(), (1, 1));
        drop(second);
        assert_eq!(connected_guests.count(), (0, 0));
    }
}
