//! The guests that want clients, each with its reversed connections.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use odyn_link::{GuestLink, GuestLinkConfig, LeaveReason, Peer, Shutdown};
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

/// One run of one guest. A name and a run are a guest's own words: it is the peer as well that
/// tells it from others, so that no guest gets another's clients by repeating them.
#[derive(Debug)]
pub(crate) struct IngressGuest {
    pub(crate) identity: Identity,
    pub(crate) peer: Peer,
    pub(crate) ports: Vec<NonZeroU16>,
    /// Opens flows on its connections.
    pub(crate) client: GuestLink,
    state: watch::Sender<ReversedLinks>,
}

/// What connections a guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReversedLinks {
    /// So many, at least one.
    Here(usize),
    /// All were lost: it may dial again.
    Lost,
    /// It said that it wants no more clients, or was lost for too long.
    Gone,
}

/// The table of guests. Waking on [`IngressGuests::changes`] tells when to look again.
#[derive(Debug, Default)]
pub(crate) struct IngressGuests {
    table: Mutex<Vec<Arc<IngressGuest>>>,
    changes: watch::Sender<()>,
}

/// There is no room.
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

    /// Whether it is this very run of this very guest.
    fn is(&self, identity: &Identity, peer: Peer) -> bool {
        self.peer == peer && self.identity == *identity
    }
}

impl IngressGuests {
    /// Told at each change of the table.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Enters a connection; says whether its guest is new.
    ///
    /// # Errors
    /// When there are too many guests, or connections of this one.
    pub(crate) fn enter(
        &self,
        hello: &IngressHello,
        peer: Peer,
        config: &GuestLinkConfig,
        shutdown: &Shutdown,
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
                        shutdown.clone(),
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

    /// A connection takes no more clients.
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

    /// Waits until the guest wants no more clients, or was lost for `linger`; it is not in the
    /// table any more then.
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
            // Under the lock, so that no connection enters between the look and the removal.
            let mut table = self.table();
            if is_over && !guest.is_here() {
                table.retain(|other| !Arc::ptr_eq(other, guest));
                drop(table);
                self.changes.send_replace(());
                return;
            }
        }
    }

    /// The guest that gets the clients of a mapping: the one that has them, as long as it is here;
    /// else one that is; else one that may come back. The other is one that would have them too.
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

/// Whether a later run of the same guest is here: then the old one's connections are of a process
/// that has ended, whose end has not been noticed yet.
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
            .enter(hello, peer, &config, &Shutdown::default())
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
        // But not by a name alone.
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
        let (config, shutdown) = (GuestLinkConfig::default(), Shutdown::default());
        for _ in 0..MAX_CONNECTIONS {
            enter(&guests, &hello("a", 1, &[443]), cid(3));
        }
        let one_more = guests.enter(&hello("a", 1, &[443]), cid(3), &config, &shutdown);
        assert!(one_more.is_err());
        for number in 1..MAX_GUESTS as u32 {
            enter(&guests, &hello("a", 1, &[443]), cid(3 + number));
        }
        let one_more = guests.enter(&hello("b", 1, &[443]), cid(3), &config, &shutdown);
        assert!(one_more.is_err());
    }
}
