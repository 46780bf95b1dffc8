//! The state of every TCP connection that passes the device.
//!
//! A connection of the app (client → original destination) reaches the listener from a *peer*: an
//! address and a port out of a block of our own, which stand for the flow while it lives. Both ends
//! are sockets of this kernel, which does windows, retransmissions, half-close and resets. The
//! table maps the addresses and knows three states:
//!
//! - **held**: the app's SYN waits here for the decision. Its retransmissions are dropped.
//! - **open**: the SYN went to the listener; every packet passes, with other addresses.
//! - **refused**: the app got an answer, and gets it again for a repeated SYN.
//!
//! The table forgets a flow when both sides have had their FIN acknowledged, at a reset, or after a
//! long silence once the relay has ended. It answers a packet of a forgotten flow with a reset, as
//! a kernel does without a socket, so forgetting early is safe. The table does no I/O and gets the
//! time from its caller.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::build::Unreachable;
use super::packet::{ACK, FIN, RST, SYN, Tcp};
use crate::capture::routes::OwnAddresses;
use crate::capture::udp_recv::UdpFlowKey;

/// Flows in the table, at most.
pub const MAX_FLOWS: usize = 65_536;
/// How long an answer is kept for a repeated SYN. The first retransmissions come after one and
/// three seconds.
const REFUSED: Duration = Duration::from_secs(4);
/// How long a SYN without answer is kept. A kernel stops retransmitting after 127 s.
const SILENT: Duration = Duration::from_secs(130);
/// The silence after which a flow is forgotten whose relay has ended. Zero-window probes, the
/// rarest packets of a live connection, come every two minutes.
const IDLE: Duration = Duration::from_secs(300);
/// Interval of the searches for refused flows in a full table.
const ROOM_INTERVAL: Duration = Duration::from_millis(100);

/// First port of a peer.
const FIRST_PORT: u32 = 1024;
const PORTS: u32 = 65_536 - FIRST_PORT;
/// The addresses of peers: the own address plus 1 to 253. These are in 198.18.0.0/24 and the low
/// 2^16 of the IPv6 block, which are never bound to names.
const PEERS: u32 = 253;

/// The peer's address and port, which stand for a flow. They are given out in turn: one returns
/// after sixteen million flows, long after the kernel's TIME_WAIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(u32);

/// The answer to a refused connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A reset, as from a closed port: ECONNREFUSED.
    Reset,
    /// An ICMP error.
    Unreachable(Unreachable),
    /// No answer: the app's kernel gives up with ETIMEDOUT.
    Silence,
}

/// The handling of a packet of the app.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A new connection; the table keeps its SYN.
    Held(Id),
    /// Pass it to the listener, as from this peer.
    Forward(SocketAddr),
    /// Drop it.
    Ignore,
    /// Answer it with this refusal.
    Refuse(Refusal),
    /// Reset it: it belongs to no flow.
    Reset,
    /// Refuse it: the table is full.
    Full,
}

/// The flows. `W` waits for the accepted connection.
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
    /// The sequence numbers after the FIN of the app and of the listener, once seen.
    fins: [Option<u32>; 2],
    acknowledged: [bool; 2],
    seen: Instant,
    /// Whether a task still serves the flow.
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

const APP: usize = 0;
const LISTENER: usize = 1;

impl<W> Table<W> {
    /// Makes a table for at most `limit` flows.
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

    /// Handles a segment of the app. `syn` is what the table keeps of a segment that [`opens`] a
    /// connection.
    pub fn from_app(
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
                        let over = flow.pass(APP, tcp);
                        let peer = self.peer(id, route.client.is_ipv4());
                        if over {
                            self.forget(id);
                        }
                        peer.map_or(Step::Ignore, Step::Forward)
                    }
                };
            }
            // A new connection with the same addresses has a new socket, so the old connection is
            // gone.
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

    /// Handles a segment of the listener to a peer. Returns its new source and destination.
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

    /// Opens a held connection. Returns its SYN and the peer to send it from. `waiter` gets the
    /// accepted connection, and is dropped when there will be none.
    pub fn open(&mut self, id: Id, waiter: Option<W>) -> Option<(Box<[u8]>, SocketAddr)> {
        let flow = self.flows.get_mut(&id)?;
        let syn = flow.leave_held(State::Open)?;
        flow.served = waiter.is_some();
        flow.waiter = waiter;
        let ipv4 = flow.route.client.is_ipv4();
        Some((syn, self.peer(id, ipv4)?))
    }

    /// Refuses a held connection. Returns its SYN, which the caller answers.
    pub fn refuse(&mut self, id: Id, refusal: Refusal, now: Instant) -> Option<Box<[u8]>> {
        let flow = self.flows.get_mut(&id)?;
        let syn = flow.leave_held(State::Refused(refusal))?;
        flow.served = false;
        flow.seen = now;
        Some(syn)
    }

    /// Returns the waiter for the connection that the listener accepted from this peer.
    pub fn accepted(&mut self, peer: SocketAddr) -> Option<W> {
        let id = self.id(peer)?;
        self.flows.get_mut(&id)?.waiter.take()
    }

    /// Notes that the relay has ended; the kernel may still have bytes to deliver.
    pub fn ended(&mut self, id: Id) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.served = false;
            flow.waiter = None;
        }
    }

    /// Forgets flows that have ended and are silent.
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

    /// Makes room by forgetting refused flows, which are kept for repeated SYNs only. The search is
    /// costly and runs once in [`ROOM_INTERVAL`].
    fn make_room(&mut self, now: Instant) {
        if self
            .room_made
            .is_some_and(|at| now.duration_since(at) < ROOM_INTERVAL)
        {
            return;
        }
        self.room_made = Some(now);
        self.flows
            .retain(|_, flow| !matches!(flow.state, State::Refused(_)));
        let flows = &self.flows;
        self.by_route.retain(|_, id| flows.contains_key(id));
    }

    /// The number of flows in the table.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether the table is empty.
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
        // There are fewer flows than ids, so this loop ends.
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
    /// Takes the SYN of a held connection and sets its new state. Ignores other connections.
    fn leave_held(&mut self, next: State) -> Option<Box<[u8]>> {
        let State::Held(syn) = &mut self.state else {
            return None;
        };
        let syn = std::mem::take(syn);
        self.state = next;
        Some(syn)
    }

    /// Notes a segment of one side. Returns whether the connection has ended.
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
