use odyn_proto::ClientAddr;

use super::*;

fn own() -> OwnAddresses {
    OwnAddresses {
        v4: odyn_proto::synthetic::GUEST_V4,
        v6: Some(odyn_proto::synthetic::GUEST_V6),
    }
}

fn route(port: u16) -> UdpFlowKey {
    UdpFlowKey {
        client: ClientAddr(SocketAddr::new(
            odyn_proto::synthetic::GUEST_V4.into(),
            port,
        )),
        original: "203.0.113.9:443".parse().unwrap(),
    }
}

fn segment(flags: u8, sequence: u32, acknowledged: u32, data: usize) -> Tcp {
    Tcp {
        source: 0,
        destination: 0,
        sequence,
        acknowledged,
        flags,
        header: 20,
        data,
    }
}

struct Bed {
    table: Table<&'static str>,
    now: Instant,
}

impl Bed {
    fn new(limit: usize) -> Self {
        Self {
            table: Table::new(own(), limit),
            now: Instant::now(),
        }
    }

    fn app(&mut self, route: UdpFlowKey, tcp: Tcp) -> Step {
        self.table
            .from_app(route, &tcp, Some(b"packet".to_vec()), self.now)
    }

    fn hold(&mut self, port: u16, initial: u32) -> Id {
        match self.app(route(port), segment(SYN, initial, 0, 0)) {
            Step::Held(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn opened(&mut self, port: u16) -> (Id, SocketAddr) {
        let id = self.hold(port, 100);
        let (_, peer) = self.table.open(id, Some("task")).unwrap();
        (id, peer)
    }

    fn listener(&mut self, peer: SocketAddr, tcp: Tcp) -> bool {
        self.table.from_listener(peer, &tcp, self.now).is_some()
    }
}

#[test]
fn a_connection_from_its_syn_to_its_last_acknowledgement() {
    let mut bed = Bed::new(9);
    let (_, peer) = bed.opened(1);
    assert!(bed.listener(peer, segment(SYN | ACK, 500, 101, 0)));
    let ends = bed
        .table
        .from_listener(peer, &segment(ACK, 501, 101, 0), bed.now);
    assert_eq!(ends, Some((*route(1).original, *route(1).client)));
    assert_eq!(bed.table.accepted(peer), Some("task"));
    assert_eq!(bed.table.accepted(peer), None);
    let forward = Step::Forward(peer);
    assert_eq!(bed.app(route(1), segment(ACK | FIN, 101, 501, 7)), forward);
    assert!(bed.listener(peer, segment(ACK, 501, 109, 0)));
    // Half closed: it may stay so for ever.
    bed.now += IDLE * 10;
    bed.table.sweep(bed.now);
    assert!(bed.listener(peer, segment(ACK | FIN, 501, 109, 0)));
    assert_eq!(bed.app(route(1), segment(ACK, 109, 502, 0)), forward);
    assert!(bed.table.is_empty());
    assert_eq!(bed.app(route(1), segment(ACK, 109, 502, 0)), Step::Reset);
    assert!(!bed.listener(peer, segment(ACK, 502, 109, 0)));
}

#[test]
fn retransmissions_of_a_held_syn_are_lost() {
    let mut bed = Bed::new(9);
    let id = bed.hold(1, 100);
    assert_eq!(bed.app(route(1), segment(SYN, 100, 0, 0)), Step::Ignore);
    assert!(bed.table.open(id, None).is_some());
    assert!(bed.table.open(id, None).is_none(), "only once");
    let step = bed.app(route(1), segment(SYN, 100, 0, 0));
    assert!(matches!(step, Step::Forward(_)), "{step:?}");
}

#[test]
fn a_refusal_is_repeated_for_a_while() {
    let mut bed = Bed::new(9);
    let id = bed.hold(1, 100);
    let refusal = Refusal::Unreachable(Unreachable::Host);
    assert!(bed.table.refuse(id, refusal, bed.now).is_some());
    let again = segment(SYN, 100, 0, 0);
    assert_eq!(bed.app(route(1), again), Step::Refuse(refusal));
    assert_eq!(bed.app(route(1), segment(ACK, 101, 1, 0)), Step::Reset);
    assert!(bed.table.open(id, None).is_none(), "refused is refused");
    bed.now += REFUSED;
    bed.table.sweep(bed.now);
    assert!(bed.table.is_empty());
}

#[test]
fn a_new_connection_between_the_same_ends_replaces_the_old_one() {
    let mut bed = Bed::new(9);
    let (old, old_peer) = bed.opened(1);
    let new = bed.hold(1, 4_000);
    assert_ne!(old, new);
    assert!(!bed.listener(old_peer, segment(ACK, 1, 1, 0)));
    assert_eq!(bed.table.accepted(old_peer), None, "its waiter was dropped");
    bed.table.ended(old);
    assert!(bed.table.open(new, None).is_some());
}

#[test]
fn a_reset_ends_a_flow_from_either_side() {
    let mut bed = Bed::new(9);
    let (_, peer) = bed.opened(1);
    assert_eq!(
        bed.app(route(1), segment(RST, 101, 0, 0)),
        Step::Forward(peer)
    );
    assert!(bed.table.is_empty());
    let (_, peer) = bed.opened(2);
    assert!(bed.listener(peer, segment(RST | ACK, 1, 101, 0)));
    assert!(bed.table.is_empty());
}

#[test]
fn the_table_is_bounded_and_refusals_make_room() {
    let mut bed = Bed::new(2);
    bed.hold(1, 1);
    let second = bed.hold(2, 1);
    assert_eq!(bed.app(route(3), segment(SYN, 1, 0, 0)), Step::Full);
    bed.table.refuse(second, Refusal::Reset, bed.now);
    bed.now += ROOM_INTERVAL;
    bed.hold(3, 1);
    assert_eq!(bed.table.len(), 2);
}

#[test]
fn what_opens_no_connection_is_reset() {
    let mut bed = Bed::new(9);
    for flags in [0, ACK, RST, SYN | ACK, SYN | FIN, SYN | RST] {
        assert_eq!(bed.app(route(1), segment(flags, 1, 1, 0)), Step::Reset);
    }
}

#[test]
fn peers_and_ids_are_the_same_thing() {
    let table: Table<()> = Table::new(own(), 1);
    for id in [0, 1, PORTS - 1, PORTS, PEERS * PORTS - 1] {
        for ipv4 in [true, false] {
            let peer = table.peer(Id(id), ipv4).unwrap();
            assert_eq!(table.id(peer), Some(Id(id)), "{peer}");
            assert!(odyn_proto::synthetic::contains(peer.ip()));
        }
    }
    let last = table.peer(Id(PEERS * PORTS - 1), true).unwrap();
    assert_eq!(last, "198.18.0.254:65535".parse().unwrap());
    for not in [
        "198.18.0.1:5000",
        "198.18.0.255:5000",
        "198.18.0.2:1",
        "[fd6f::1]:5000",
    ] {
        assert_eq!(table.id(not.parse().unwrap()), None, "{not}");
    }
}
