//! The guests that take clients, each with its reversed connections.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use odyn_link::drain::Watch;
use odyn_link::{GuestLink, GuestLinkConfig, LeaveReason, Peer};
use odyn_proto::Identity;
use odyn_proto::wire::ingress::IngressHello;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::rules::Mapping;

/// Most guests at once.
const MAX_GUESTS: usize = 1024;

/// Most reversed connections of one guest.
const MAX_CONNECTIONS: usize = 16;

/// One run of one guest.
///
/// A guest states its name and run itself. The peer address is part of the identity, so that a
/// guest cannot get another's clients by stating the same name and run.
#[derive(Debug)]
pub(crate) struct IngressGuest {
    pub(crate) identity: Identity,
    pub(crate) peer: Peer,
    pub(crate) ports: Vec<NonZeroU16>,
    /// Opens flows on the guest's connections.
    pub(crate) client: GuestLink,
    state: watch::Sender<ReversedLinks>,
}

/// The connections of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReversedLinks {
    /// At least one connection is up.
    Here(usize),
    /// All connections broke: the guest may dial again.
    Lost,
    /// The guest takes no more clients, or stayed away for too long.
    Gone,
}

/// The table of guests. [`IngressGuests::changes`] wakes at each change.
#[derive(Debug, Default)]
pub(crate) struct IngressGuests {
    table: Mutex<Vec<Arc<IngressGuest>>>,
    changes: watch::Sender<()>,
}

/// There are as many guests or connections as there may be.
#[derive(Debug)]
pub(crate) struct TooManyConnections;

impl fmt::Display for IngressGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity.fmt(f)
    }
}

impl IngressGuest {
    pub(super) fn is_here(&self) -> bool {
        matches!(*self.state.borrow(), ReversedLinks::Here(_))
    }

    /// Whether this is the run of `identity` at `peer`.
    fn is(&self, identity: &Identity, peer: Peer) -> bool {
        self.peer == peer && self.identity == *identity
    }
}

impl IngressGuests {
    /// Wakes at each change of the table.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Enters a connection. Returns its guest, and whether the guest is new.
    ///
    /// # Errors
    /// There are too many guests, or too many connections of this one.
    pub(crate) fn enter(
        &self,
        hello: &IngressHello,
        peer: Peer,
        config: &GuestLinkConfig,
        drain: &Watch,
    ) -> Result<(Arc<IngressGuest>, bool), TooManyConnections> {
        let mut table = self.table();
        let known = table.iter().find(|guest| guest.is(&hello.identity, peer));
        let (guest, is_new) = match known {
            Some(guest) => {
                let mut has_room = true;
                guest.state.send_modify(|state| match state {
                    ReversedLinks::Here(count) if *count >= MAX_CONNECTIONS => has_room = false,
                    ReversedLinks::Here(count) => *count += 1,
                    ReversedLinks::Lost | ReversedLinks::Gone => *state = ReversedLinks::Here(1),
                });
                if !has_room {
                    return Err(TooManyConnections);
                }
                (Arc::clone(guest), false)
            }
            None if table.len() >= MAX_GUESTS => return Err(TooManyConnections),
            None => {
                let guest = Arc::new(IngressGuest {
                    identity: hello.identity.clone(),
                    peer,
                    ports: hello.ports.clone(),
                    client: GuestLink::new(
                        hello.identity.to_string(),
                        config.clone(),
                        drain.clone(),
                    ),
                    state: watch::Sender::new(ReversedLinks::Here(1)),
                });
                table.push(Arc::clone(&guest));
                (guest, true)
            }
        };
        drop(table);
        self.changes.send_replace(());
        Ok((guest, is_new))
    }

    /// Removes a connection that takes no more clients.
    pub(crate) fn leave(&self, guest: &IngressGuest, leave: &LeaveReason) {
        guest.state.send_modify(|state| {
            *state = match (*state, leave) {
                (ReversedLinks::Here(count @ 2..), _) => ReversedLinks::Here(count - 1),
                (ReversedLinks::Gone, _) | (_, LeaveReason::Asked | LeaveReason::Closing) => {
                    ReversedLinks::Gone
                }
                (ReversedLinks::Here(_) | ReversedLinks::Lost, LeaveReason::Lost(_)) => {
                    ReversedLinks::Lost
                }
            };
        });
        self.changes.send_replace(());
    }

    /// Waits until the guest takes no more clients, or was lost for `linger`.
    ///
    /// The guest is then removed from the table.
    pub(crate) async fn gone(&self, guest: &Arc<IngressGuest>, linger: Duration) {
        let mut state = guest.state.subscribe();
        loop {
            let now = *state.borrow_and_update();
            let is_over = match now {
                ReversedLinks::Here(_) => {
                    // The sender lives as long as the guest.
                    let _ = state.changed().await;
                    false
                }
                ReversedLinks::Lost => timeout(
                    linger,
                    state.wait_for(|state| *state != ReversedLinks::Lost),
                )
                .await
                .is_err(),
                ReversedLinks::Gone => true,
            };
            // Check and remove under one lock: no connection can enter in between.
            let mut table = self.table();
            if is_over && !guest.is_here() {
                table.retain(|other| !Arc::ptr_eq(other, guest));
                drop(table);
                self.changes.send_replace(());
                return;
            }
        }
    }

    /// Chooses the guest that gets the clients of a mapping, and names a second that wants them.
    ///
    /// First choice: the present holder while it is connected; then any connected guest; then a
    /// guest that may come back.
    pub(crate) fn choose(
        &self,
        mapping: &Mapping,
        holder: Option<&Arc<IngressGuest>>,
    ) -> (Option<Arc<IngressGuest>>, Option<Arc<IngressGuest>>) {
        let table = self.table();
        let wanting = || {
            table.iter().filter(|guest| {
                guest
                    .ports
                    .iter()
                    .any(|port| mapping.is_for(&guest.identity.name, &guest.peer, *port))
            })
        };
        let holds =
            |guest: &&Arc<IngressGuest>| holder.is_some_and(|holder| Arc::ptr_eq(guest, holder));
        let here = |guest: &&Arc<IngressGuest>| guest.is_here();
        let chosen = wanting()
            .find(|guest| holds(guest) && here(guest) && !is_superseded(guest, &table))
            .or_else(|| wanting().find(|guest| here(guest) && !is_superseded(guest, &table)))
            .or_else(|| wanting().find(holds))
            .or_else(|| wanting().next());
        let other = wanting().find(|guest| {
            here(guest)
                && !is_superseded(guest, &table)
                && chosen.is_some_and(|chosen| !Arc::ptr_eq(guest, chosen))
        });
        (chosen.cloned(), other.cloned())
    }

    fn table(&self) -> MutexGuard<'_, Vec<Arc<IngressGuest>>> {
        self.table.lock()
    }
}

/// Whether a later run of the same guest is connected.
///
/// Then the old run's process has ended, although its connections still seem to be up.
fn is_superseded(guest: &Arc<IngressGuest>, table: &[Arc<IngressGuest>]) -> bool {
    table
        .iter()
        .skip_while(|other| !Arc::ptr_eq(other, guest))
        .skip(1)
        .any(|later| {
            later.is_here()
                && later.peer == guest.peer
                && later.identity.name == guest.identity.name
        })
}

#[cfg(test)]
mod tests {
    use odyn_link::drain::Trigger;
    use odyn_proto::{GuestName, RunId};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn hello(name: &str, run: u8, ports: &[u16]) -> IngressHello {
        IngressHello {
            identity: Identity {
                name: GuestName::nearest(name),
                run: RunId::new([run; 16]),
            },
            ports: ports.iter().map(|p| NonZeroU16::new(*p).unwrap()).collect(),
        }
    }

    fn cid(cid: u32) -> Peer {
        Peer::Vsock { cid }
    }

    fn enter(guests: &IngressGuests, hello: &IngressHello, peer: Peer) -> Arc<IngressGuest> {
        let config = GuestLinkConfig::default();
        guests
            .enter(hello, peer, &config, &Trigger::default().watch())
            .unwrap()
            .0
    }

    fn lost() -> LeaveReason {
        LeaveReason::Lost("test".into())
    }

    fn chosen(
        guests: &IngressGuests,
        mapping: &str,
        holder: Option<&Arc<IngressGuest>>,
    ) -> Option<String> {
        let (chosen, _) = guests.choose(&mapping.parse().unwrap(), holder);
        chosen.map(|guest| format!("{} {}", guest.peer, guest.identity.run)[..8].to_owned())
    }

    #[tokio::test]
    async fn a_mapping_gives_a_port_to_the_guest_that_it_names() {
        let guests = IngressGuests::default();
        let _shop = enter(&guests, &hello("shop", 1, &[80, 443]), cid(3));
        let _bank = enter(&guests, &hello("bank", 2, &[443]), cid(4));
        for (mapping, expected) in [
            ("443=0.0.0.0:1", Some("cid 3 01")),
            ("bank:443=0.0.0.0:1", Some("cid 4 02")),
            ("cid=4:443=0.0.0.0:1", Some("cid 4 02")),
            ("bank:80=0.0.0.0:1", None),
            ("cid=4:80=0.0.0.0:1", None),
            ("cid=5:443=0.0.0.0:1", None),
            ("444=0.0.0.0:1", None),
        ] {
            let chosen = chosen(&guests, mapping, None);
            assert_eq!(chosen.as_deref(), expected, "{mapping}");
        }
    }

    #[tokio::test]
    async fn who_has_the_clients_keeps_them_until_it_is_lost_and_another_is_there() {
        const ANY: &str = "443=0.0.0.0:1";
        let guests = IngressGuests::default();
        let one = enter(&guests, &hello("a", 1, &[443]), cid(3));
        let two = enter(&guests, &hello("b", 2, &[443]), cid(4));
        assert_eq!(chosen(&guests, ANY, Some(&two)).unwrap(), "cid 4 02");
        let (_, other) = guests.choose(&ANY.parse().unwrap(), Some(&two));
        assert!(Arc::ptr_eq(&other.unwrap(), &one));
        guests.leave(&two, &lost());
        assert_eq!(chosen(&guests, ANY, Some(&two)).unwrap(), "cid 3 01");
        guests.leave(&one, &lost());
        assert_eq!(chosen(&guests, ANY, Some(&two)).unwrap(), "cid 4 02");
    }

    #[tokio::test]
    async fn the_next_run_of_a_guest_gets_its_clients_at_once() {
        const ANY: &str = "443=0.0.0.0:1";
        let guests = IngressGuests::default();
        let old = enter(&guests, &hello("a", 1, &[443]), cid(3));
        let _new = enter(&guests, &hello("a", 2, &[443]), cid(3));
        assert_eq!(chosen(&guests, ANY, Some(&old)).unwrap(), "cid 3 02");
        // The same name from another peer is not enough.
        let _thief = enter(&guests, &hello("a", 3, &[443]), cid(9));
        assert_eq!(chosen(&guests, ANY, None).unwrap(), "cid 3 02");
    }

    #[tokio::test]
    async fn a_run_is_not_anothers_because_it_says_so() {
        let guests = IngressGuests::default();
        let hello = hello("a", 1, &[443]);
        let one = enter(&guests, &hello, cid(3));
        let two = enter(&guests, &hello, cid(4));
        assert!(!Arc::ptr_eq(&one, &two));
        assert!(Arc::ptr_eq(&one, &enter(&guests, &hello, cid(3))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_guest_is_waited_for_and_one_that_left_is_not() {
        let guests = IngressGuests::default();
        let hello = hello("a", 1, &[443]);
        let guest = enter(&guests, &hello, cid(3));
        guests.leave(&guest, &LeaveReason::Asked);
        guests.gone(&guest, Duration::MAX).await;
        assert!(guests.table().is_empty());

        let guest = enter(&guests, &hello, cid(3));
        guests.leave(&guest, &lost());
        let again = async {
            tokio::time::sleep(LONG / 2).await;
            enter(&guests, &hello, cid(3));
            tokio::time::sleep(2 * LONG).await;
            assert!(guest.is_here() && !guests.table().is_empty());
            guests.leave(&guest, &lost());
        };
        tokio::join!(guests.gone(&guest, LONG), again);
        assert!(guests.table().is_empty());
    }

    #[tokio::test]
    async fn connections_and_guests_are_bounded() {
        let guests = IngressGuests::default();
        let (config, drain) = (GuestLinkConfig::default(), Trigger::default().watch());
        for _ in 0..MAX_CONNECTIONS {
            enter(&guests, &hello("a", 1, &[443]), cid(3));
        }
        let one_more = guests.enter(&hello("a", 1, &[443]), cid(3), &config, &drain);
        assert!(one_more.is_err());
        for number in 1..MAX_GUESTS as u32 {
            enter(&guests, &hello("a", 1, &[443]), cid(3 + number));
        }
        let one_more = guests.enter(&hello("b", 1, &[443]), cid(3), &config, &drain);
        assert!(one_more.is_err());
    }
}
