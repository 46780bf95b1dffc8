//! Which TCP flow is which: the state of every connection that passes the device.
//!
//! A connection of the program, client → original destination, is given to our listener as one
//! from a *peer*: an address and a port out of a block that is ours, which stand for the flow
//! while it lives. Both ends are sockets of this kernel, so windows, retransmissions, half-close
//! and resets are its business; the table only says who is who, and knows three moments:
//!
//! - **held**: the program's SYN waits here until somebody decides. Its retransmissions are lost.
//! - **open**: the SYN went to the listener; every packet passes, with other ends.
//! - **refused**: an answer was given; a SYN that had been sent again before gets it again.
//!
//! A flow is forgotten when both sides have had their FIN acknowledged, at a reset, or when it is
//! silent for long after our side of it ended. A packet of a forgotten flow is answered by a
//! reset, as a kernel answers one that belongs to no socket; so forgetting early is safe. Nothing
//! here does I/O or knows the time.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::build::Unreachable;
use super::packet::{ACK, FIN, RST, SYN, Tcp};
use crate::capture::routes::OwnAddresses;
use crate::capture::udp_recv::UdpFlowKey;

/// Flows at one time.
pub const MAX_FLOWS: usize = 65_536;
/// How long an answer is kept for a SYN that is sent again: the first retransmissions come after
/// one and three seconds.
const REFUSED: Duration = Duration::from_secs(4);
/// How long a SYN without answer is kept: a kernel stops retransmitting after 127 s.
const SILENT: Duration = Duration::from_secs(130);
/// Silence after which a flow whose relay has ended is forgotten. Zero-window probes, the rarest
/// packets of a live connection, come every two minutes.
const IDLE: Duration = Duration::from_secs(300);
/// Time between two searches for refused flows in a full table.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

/// First port of a peer.
const FIRST_PORT: u32 = 1024;
const PORTS: u32 = 65_536 - FIRST_PORT;
/// The peers are the own address plus 1 to 253: in 198.18.0.0/24 and the low 2^16 of the IPv6
/// block, which are never bound to names.
const PEERS: u32 = 253;

/// Stands for a flow: peer address and port. They are given out in turn, so that one returns after
/// sixteen million flows, long after the kernel's TIME_WAIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(u32);

/// How a held connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As a closed port does: ECONNREFUSED.
    Reset,
    /// By an ICMP error.
    Unreachable(Unreachable),
    /// Not at all: the program's kernel gives up by itself, with ETIMEDOUT.
    Silence,
}

/// What to do with a packet of the program.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A new connection; its SYN is kept.
    Held(Id),
    /// Give it to the listener, from this peer.
    Forward(SocketAddr),
    /// Lose it.
    Ignore,
    /// Answer it like this.
    Refuse(Refusal),
    /// It belongs to no flow.
    Reset,
    /// There is no room for a new flow.
    Full,
}

/// The flows. `W` is whoever waits for the accepted connection.
pub struct Table<W> {
    own: OwnAddresses,
    by_route: HashMap<UdpFlowKey, Id>,
    flows: HashMap<Id, Flow<W>>,
    next: u32,
    limit: usize,
    room_made: Option<Instant>,
}

struct Flow<W> {
    route: UdpFlowKey,
    initial: u32,
    state: State,
    /// Sequence numbers after the FIN of the program and of the listener, once seen.
    fins: [Option<u32>; 2],
    acknowledged: [bool; 2],
    seen: Instant,
    /// A task of ours still serves it.
    served: bool,
    waiter: Option<W>,
}

enum State {
    Held(Box<[u8]>),
    Open,
    Refused(Refusal),
}

/// Whether a segment opens a connection.
pub fn opens(tcp: &Tcp) -> bool {
    tcp.flags & (SYN | ACK | RST | FIN) == SYN
}

const PROGRAM: usize = 0;
const LISTENER: usize = 1;

impl<W> Table<W> {
    /// An empty table for at most `limit` flows.
    pub fn new(own: OwnAddresses, limit: usize) -> Self {
        Self {
            own,
            by_route: HashMap::new(),
            flows: HashMap::new(),
            next: 0,
            limit,
            room_made: None,
        }
    }

    /// A segment of the program; `syn` is what to keep of it when it [`opens`] a connection.
    pub fn from_program(
        &mut self,
        route: UdpFlowKey,
        tcp: &Tcp,
        syn: Option<Vec<u8>>,
        now: Instant,
    ) -> Step {
        let opens = opens(tcp);
        if let Some(id) = self.by_route.get(&route).copied()
            && let Some(flow) = self.flows.get_mut(&id)
        {
            if !opens || flow.initial == tcp.sequence {
                flow.seen = now;
                return match &flow.state {
                    State::Held(_) => Step::Ignore,
                    State::Refused(_) if !opens => Step::Reset,
                    State::Refused(refusal) => Step::Refuse(*refusal),
                    State::Open => {
                        let over = flow.pass(PROGRAM, tcp);
                        let peer = self.peer(id, route.client.is_ipv4());
                        if over {
                            self.forget(id);
                        }
                        peer.map_or(Step::Ignore, Step::Forward)
                    }
                };
            }
            // Another connection between the same ends: its socket is new, so the old one is gone.
            self.forget(id);
        }
        let Some(syn) = syn.filter(|_| opens) else {
            return Step::Reset;
        };
        if self.flows.len() >= self.limit {
            self.make_room(now);
        }
        let Some(id) = self.free_id() else {
            return Step::Full;
        };
        let flow = Flow {
            route,
            initial: tcp.sequence,
            state: State::Held(syn.into()),
            fins: [None; 2],
            acknowledged: [false; 2],
            seen: now,
            served: true,
            waiter: None,
        };
        self.flows.insert(id, flow);
        self.by_route.insert(route, id);
        Step::Held(id)
    }

    /// A segment of the listener to a peer: the ends that it is to have, from and to.
    pub fn from_listener(
        &mut self,
        peer: SocketAddr,
        tcp: &Tcp,
        now: Instant,
    ) -> Option<(SocketAddr, SocketAddr)> {
        let id = self.id(peer)?;
        let flow = self.flows.get_mut(&id)?;
        if !matches!(flow.state, State::Open) {
            return None;
        }
        flow.seen = now;
        let ends = (flow.route.original.0, flow.route.client.0);
        if flow.pass(LISTENER, tcp) {
            self.forget(id);
        }
        Some(ends)
    }

    /// Lets a held connection go on: its SYN, and the peer that it is to come from. `waiter` gets
    /// the connection once it is accepted, and is dropped when that can't be any more.
    pub fn open(&mut self, id: Id, waiter: Option<W>) -> Option<(Box<[u8]>, SocketAddr)> {
        let flow = self.flows.get_mut(&id)?;
        let syn = flow.leave_held(State::Open)?;
        flow.served = waiter.is_some();
        flow.waiter = waiter;
        let ipv4 = flow.route.client.is_ipv4();
        Some((syn, self.peer(id, ipv4)?))
    }

    /// Refuses a held connection; its SYN is returned, to be answered.
    pub fn refuse(&mut self, id: Id, refusal: Refusal, now: Instant) -> Option<Box<[u8]>> {
        let flow = self.flows.get_mut(&id)?;
        let syn = flow.leave_held(State::Refused(refusal))?;
        flow.served = false;
        flow.seen = now;
        Some(syn)
    }

    /// Who waits for the connection that the listener has accepted from this peer.
    pub fn accepted(&mut self, peer: SocketAddr) -> Option<W> {
        let id = self.id(peer)?;
        self.flows.get_mut(&id)?.waiter.take()
    }

    /// Our end of the flow is over; the kernel may still have bytes of it to deliver.
    pub fn ended(&mut self, id: Id) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.served = false;
            flow.waiter = None;
        }
    }

    /// Forgets what is over and silent.
    pub fn sweep(&mut self, now: Instant) {
        self.flows.retain(|_, flow| {
            let limit = match flow.state {
                State::Refused(Refusal::Silence) => SILENT,
                State::Refused(_) => REFUSED,
                State::Held(_) | State::Open => IDLE,
            };
            flow.served || now.duration_since(flow.seen) < limit
        });
        let flows = &self.flows;
        self.by_route.retain(|_, id| flows.contains_key(id));
    }

    /// Refused flows are remembered for comfort only. Looking for them costs, so not every time.
    fn make_room(&mut self, now: Instant) {
        if self
            .room_made
            .is_some_and(|at| now.duration_since(at) < ROOM_PAUSE)
        {
            return;
        }
        self.room_made = Some(now);
        self.flows
            .retain(|_, flow| !matches!(flow.state, State::Refused(_)));
        let flows = &self.flows;
        self.by_route.retain(|_, id| flows.contains_key(id));
    }

    /// Number of flows that are remembered.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    fn forget(&mut self, id: Id) {
        if let Some(flow) = self.flows.remove(&id)
            && self.by_route.get(&flow.route) == Some(&id)
        {
            self.by_route.remove(&flow.route);
        }
    }

    fn free_id(&mut self) -> Option<Id> {
        if self.flows.len() >= self.limit {
            return None;
        }
        // Fewer flows than ids: this ends.
        loop {
            let id = Id(self.next);
            self.next = (self.next + 1) % (PEERS * PORTS);
            if !self.flows.contains_key(&id) {
                return Some(id);
            }
        }
    }

    fn peer(&self, Id(id): Id, ipv4: bool) -> Option<SocketAddr> {
        let (host, port) = (1 + id / PORTS, FIRST_PORT + id % PORTS);
        let address = if ipv4 {
            Ipv4Addr::from_bits(self.own.v4.to_bits().wrapping_add(host)).into()
        } else {
            Ipv6Addr::from_bits(self.own.v6?.to_bits().wrapping_add(u128::from(host))).into()
        };
        Some(SocketAddr::new(address, u16::try_from(port).ok()?))
    }

    fn id(&self, peer: SocketAddr) -> Option<Id> {
        let host = match peer.ip() {
            IpAddr::V4(ip) => ip.to_bits().checked_sub(self.own.v4.to_bits())?,
            IpAddr::V6(ip) => {
                let host = ip.to_bits().checked_sub(self.own.v6?.to_bits())?;
                u32::try_from(host).ok()?
            }
        };
        if !(1..=PEERS).contains(&host) {
            return None;
        }
        let port = u32::from(peer.port()).checked_sub(FIRST_PORT)?;
        Some(Id((host - 1) * PORTS + port))
    }
}

impl<W> Flow<W> {
    /// The SYN of a held connection, which gets another state; no other is touched.
    fn leave_held(&mut self, next: State) -> Option<Box<[u8]>> {
        let State::Held(syn) = &mut self.state else {
            return None;
        };
        let syn = std::mem::take(syn);
        self.state = next;
        Some(syn)
    }

    /// Notes what a segment of one side says; whether the connection is over with it.
    fn pass(&mut self, side: usize, tcp: &Tcp) -> bool {
        if tcp.flags & RST != 0 {
            return true;
        }
        let other = 1 - side;
        if tcp.flags & FIN != 0
            && let Some(fin) = self.fins.get_mut(side)
        {
            let end = tcp.sequence.wrapping_add(tcp.data as u32);
            *fin = Some(end.wrapping_add(1));
        }
        if tcp.flags & ACK != 0
            && let Some(Some(fin)) = self.fins.get(other)
            && tcp.acknowledged.wrapping_sub(*fin).cast_signed() >= 0
            && let Some(acknowledged) = self.acknowledged.get_mut(other)
        {
            *acknowledged = true;
        }
        self.acknowledged == [true; 2]
    }
}

#[cfg(test)]
mod tests;
