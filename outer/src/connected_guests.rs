//! The guests that are connected, and what all connections of one guest share.

use std::collections::HashMap;

use odyn_link::Peer;
use parking_lot::{Mutex, MutexGuard};

use crate::resolver::LookupShare;

/// The guests that have at least one connection of the link.
#[derive(Debug, Default)]
pub(crate) struct ConnectedGuests {
    present: Mutex<HashMap<Peer, ConnectedGuest>>,
}

#[derive(Debug, Default)]
struct ConnectedGuest {
    connections: usize,
    lookups: LookupShare,
}

/// One connection of a guest; dropping it removes the connection from the count.
#[derive(Debug)]
pub(crate) struct ConnectionGuard<'a> {
    connected_guests: &'a ConnectedGuests,
    peer: Peer,
    is_first: bool,
    is_counted: bool,
}

impl ConnectedGuests {
    /// Counts a new connection of a guest.
    pub(crate) fn enter(&self, peer: Peer) -> ConnectionGuard<'_> {
        let mut present = self.lock();
        let guest = present.entry(peer).or_default();
        guest.connections += 1;
        ConnectionGuard {
            connected_guests: self,
            peer,
            is_first: guest.connections == 1,
            is_counted: true,
        }
    }

    /// The share of the resolver that all connections of this guest use.
    pub(crate) fn lookups(&self, peer: &Peer) -> LookupShare {
        let present = self.lock();
        present
            .get(peer)
            .map(|guest| guest.lookups.clone())
            .unwrap_or_default()
    }

    /// The numbers of guests and of their connections.
    pub(crate) fn count(&self) -> (usize, usize) {
        let present = self.lock();
        let connections = present.values().map(|guest| guest.connections).sum();
        (present.len(), connections)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Peer, ConnectedGuest>> {
        self.present.lock()
    }
}

impl ConnectionGuard<'_> {
    /// Whether the guest had no other connection when this one was counted.
    pub(crate) fn is_first(&self) -> bool {
        self.is_first
    }

    /// Removes the connection from the count. Returns whether the guest has no other one.
    pub(crate) fn leave(mut self) -> bool {
        self.remove()
    }

    fn remove(&mut self) -> bool {
        if !std::mem::take(&mut self.is_counted) {
            return false;
        }
        let mut present = self.connected_guests.lock();
        let Some(guest) = present.get_mut(&self.peer) else {
            return false;
        };
        guest.connections = guest.connections.saturating_sub(1);
        let is_last = guest.connections == 0;
        if is_last {
            present.remove(&self.peer);
        }
        is_last
    }
}

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        self.remove();
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
        assert!(first.is_first() && !second.is_first());
        let other = connected_guests.enter(Peer::Vsock { cid: 8 });
        assert_eq!(connected_guests.count(), (2, 3));
        assert!(!first.leave() && other.leave());
        assert_eq!(connected_guests.count(), (1, 1));
        assert!(second.leave());
        assert_eq!(connected_guests.count(), (0, 0));
    }
}
