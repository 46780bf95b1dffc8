//! Moves packets: reads the device, classifies each packet, and answers it or passes it on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use odyn_proto::{ClientAddr, OrigDst};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::build;
use super::build::Unreachable;
use super::device::{Device, Frame};
use super::held::Held;
use super::packet::{ICMP, ICMPV6, Ip, Parsed, Tcp, UDP, parse, udp};
use super::reassembly::Reassembly;
use super::rewrite::rewrite;
use super::table::{Id, MAX_FLOWS, Refusal, Step, Table, opens};
use crate::capture::nflog;
use crate::capture::nflog::{RecentPackets, RejectedPacket};
use crate::capture::routes::OwnAddresses;
use crate::capture::udp_recv::UdpFlowKey;

const DNS_PORT: u16 = 53;
/// ICMPv6 messages that a kernel sends by itself on every interface: multicast listener and
/// neighbour discovery. A device without neighbours needs none of them.
const ICMPV6_HOUSEKEEPING: [std::ops::RangeInclusive<u8>; 2] = [130..=137, 143..=143];

/// Receives what the app does on the network. The thread that moves packets makes these calls, so
/// they must not block.
pub trait Handler: Send + 'static {
    /// The app opens a TCP connection, which waits for a decision.
    fn connection(&self, held: Held);
    /// A TCP connection was refused, as the table is full.
    fn overflow(&self, original: OrigDst);
    /// The app sent a datagram.
    fn datagram(&self, route: UdpFlowKey, data: &[u8]);
    /// The app has closed its UDP socket.
    fn closed(&self, route: UdpFlowKey);
    /// The app sent a DNS query, to any name server.
    fn query(&self, route: UdpFlowKey, query: &[u8]);
    /// A packet of another protocol was refused. Repetitions are not reported.
    fn rejected(&self, packet: RejectedPacket);
}

/// The ports of the listeners on the own address of one family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    /// The listener for allowed connections.
    pub tcp: u16,
    /// The DNS listener.
    pub dns: u16,
}

/// The state that the thread shares with the flows.
pub struct Shared {
    device: Device,
    own: OwnAddresses,
    ports_v4: Ports,
    ports_v6: Option<Ports>,
    table: Mutex<Table<oneshot::Sender<TcpStream>>>,
}

/// The state that only the thread uses.
pub(super) struct Engine<H> {
    pub(super) shared: Arc<Shared>,
    pub(super) handler: H,
    reassembly: Reassembly,
    recent: RecentPackets,
}

impl Shared {
    pub(super) fn new(
        device: Device,
        own: OwnAddresses,
        ports_v4: Ports,
        ports_v6: Option<Ports>,
    ) -> Self {
        Self {
            device,
            own,
            ports_v4,
            ports_v6,
            table: Mutex::new(Table::new(own, MAX_FLOWS)),
        }
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    fn table(&self) -> MutexGuard<'_, Table<oneshot::Sender<TcpStream>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The own address of this family and the ports there.
    fn own(&self, ipv4: bool) -> Option<(IpAddr, Ports)> {
        if ipv4 {
            Some((self.own.v4.into(), self.ports_v4))
        } else {
            Some((self.own.v6?.into(), self.ports_v6?))
        }
    }

    /// Sends a held SYN to the listener.
    pub(super) fn open(&self, id: Id, waiter: Option<oneshot::Sender<TcpStream>>) -> Option<()> {
        let dns = waiter.is_none();
        let (syn, peer) = self.table().open(id, waiter)?;
        let (address, ports) = self.own(peer.is_ipv4())?;
        let port = if dns { ports.dns } else { ports.tcp };
        let Some(Parsed::Tcp(ip, _)) = parse(&syn) else {
            return None;
        };
        let mut syn = syn.into_vec();
        rewrite(&mut syn, &ip, false, peer, SocketAddr::new(address, port))?;
        self.send(&syn);
        Some(())
    }

    pub(super) fn refuse(&self, id: Id, refusal: Refusal, now: Instant) {
        // The lock on the table ends with this statement: the answer is written without it.
        let syn = self.table().refuse(id, refusal, now);
        if let Some(syn) = syn
            && let Some(Parsed::Tcp(ip, tcp)) = parse(&syn)
        {
            self.answer(&ip, &tcp, &syn, refusal);
        }
    }

    pub(super) fn accepted(&self, peer: SocketAddr) -> Option<oneshot::Sender<TcpStream>> {
        self.table().accepted(peer)
    }

    pub(super) fn ended(&self, id: Id) {
        self.table().ended(id);
    }

    fn answer(&self, ip: &Ip, tcp: &Tcp, packet: &[u8], refusal: Refusal) {
        match refusal {
            Refusal::Reset => {
                if let Some(reset) = build::reset(ip, tcp) {
                    self.send(&reset);
                }
            }
            Refusal::Unreachable(why) => self.send(&build::error(ip, packet, why)),
            Refusal::Silence => {}
        }
    }

    /// Sends the app an ICMP error for a datagram of `length` bytes.
    pub fn port_unreachable(&self, route: UdpFlowKey, length: usize) {
        self.send(&build::port_unreachable(route, length));
    }

    /// Sends the app a datagram as from the destination it had sent to. A datagram that is too long
    /// for the family is lost.
    pub fn datagram(&self, route: UdpFlowKey, data: &[u8]) {
        let partial = self.device.partial();
        if let Some(header) = build::udp_answer(route, data, partial) {
            let place = partial.then(|| (header.len() - 8, 6));
            report(self.device.write(&[&header, data], place));
        }
    }

    fn send(&self, packet: &[u8]) {
        report(self.device.write(&[packet, &[]], None));
    }
}

/// Writes a packet to the device. A packet that the kernel does not take is lost, as on a network.
fn report(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "cannot deliver a packet");
    }
}

impl<H: Handler> Engine<H> {
    pub(super) fn new(shared: Arc<Shared>, handler: H) -> Self {
        Self {
            shared,
            handler,
            reassembly: Reassembly::default(),
            recent: RecentPackets::default(),
        }
    }

    /// Whether the table is empty, so that no sweep is due.
    pub(super) fn is_idle(&self) -> bool {
        self.shared.table().is_empty()
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.shared.table().sweep(now);
    }

    /// Handles one packet of the app or of a listener.
    pub(super) fn packet(&mut self, frame: &mut Frame<'_>, now: Instant) {
        let partial = frame.is_partial();
        match parse(frame.packet()) {
            None => {}
            Some(Parsed::Tcp(ip, tcp)) => self.tcp(ip, tcp, frame, partial, now),
            Some(Parsed::Udp(ip, source, destination, data)) => {
                if ip.destination.is_multicast() || is_broadcast(ip.destination) {
                    return self.reject(&ip, frame.packet(), now);
                }
                self.datagram(&ip, source, destination, data);
            }
            Some(Parsed::Fragment(ip, fragment)) => {
                if fragment.protocol != UDP || ip.destination.is_multicast() {
                    if fragment.offset == 0 {
                        self.reject(&ip, frame.packet(), now);
                    }
                } else if let Some(whole) = self.reassembly.add(&ip, &fragment)
                    && let Some((source, destination, data)) = udp(&whole)
                {
                    self.datagram(&ip, source, destination, data);
                }
            }
            Some(Parsed::Icmp(ip, kind, code, rest)) => {
                if let Some(route) = about_our_answer(&ip, kind, code, rest) {
                    if let Some(route) = route {
                        self.handler.closed(route);
                    }
                } else if ip.protocol == ICMPV6
                    && ICMPV6_HOUSEKEEPING
                        .iter()
                        .any(|range| range.contains(&kind))
                {
                    // A message of the kernel itself.
                } else {
                    self.reject(&ip, frame.packet(), now);
                }
            }
            Some(Parsed::Other(_)) if is_listener_report(frame.packet()) => {}
            Some(Parsed::Other(ip)) => self.reject(&ip, frame.packet(), now),
        }
    }

    fn tcp(&mut self, ip: Ip, tcp: Tcp, frame: &mut Frame<'_>, partial: bool, now: Instant) {
        let Some((own, ports)) = self.shared.own(ip.source.is_ipv4()) else {
            return;
        };
        let source = SocketAddr::new(ip.source, tcp.source);
        let destination = SocketAddr::new(ip.destination, tcp.destination);
        // These two ports of the own address belong to our listeners, so no app socket has them.
        if ip.source == own && (tcp.source == ports.tcp || tcp.source == ports.dns) {
            let ends = self.shared.table().from_listener(destination, &tcp, now);
            match ends {
                Some((from, to)) => self.forward(frame, &ip, partial, from, to),
                None => self.reset(&ip, &tcp),
            }
            return;
        }
        let route = UdpFlowKey {
            client: ClientAddr(source),
            original: OrigDst(destination),
        };
        let syn = opens(&tcp).then(|| build::bare_syn(frame.packet(), &ip, &tcp));
        let step = self.shared.table().from_app(route, &tcp, syn, now);
        match step {
            Step::Forward(peer) => {
                let dns = destination.port() == DNS_PORT;
                let port = if dns { ports.dns } else { ports.tcp };
                self.forward(frame, &ip, partial, peer, SocketAddr::new(own, port));
            }
            Step::Held(id) if destination.port() == DNS_PORT => {
                self.shared.open(id, None);
            }
            Step::Held(id) => {
                let shared = Arc::clone(&self.shared);
                self.handler
                    .connection(Held::new(shared, id, OrigDst(destination)));
            }
            Step::Ignore => {}
            Step::Refuse(refusal) => self.shared.answer(&ip, &tcp, frame.packet(), refusal),
            Step::Reset => self.reset(&ip, &tcp),
            Step::Full => {
                self.reset(&ip, &tcp);
                self.handler.overflow(OrigDst(destination));
            }
        }
    }

    fn forward(
        &self,
        frame: &mut Frame<'_>,
        ip: &Ip,
        partial: bool,
        from: SocketAddr,
        to: SocketAddr,
    ) {
        if rewrite(frame.packet_mut(), ip, partial, from, to).is_some() {
            report(self.shared.device.write_back(frame));
        }
    }

    fn reset(&self, ip: &Ip, tcp: &Tcp) {
        if let Some(reset) = build::reset(ip, tcp) {
            self.shared.send(&reset);
        }
    }

    fn datagram(&self, ip: &Ip, source: u16, destination: u16, data: &[u8]) {
        let route = UdpFlowKey {
            client: ClientAddr(SocketAddr::new(ip.source, source)),
            original: OrigDst(SocketAddr::new(ip.destination, destination)),
        };
        if destination == DNS_PORT {
            self.handler.query(route, data);
        } else {
            self.handler.datagram(route, data);
        }
    }

    /// Refuses a packet that is not carried, and reports it once per interval.
    fn reject(&mut self, ip: &Ip, packet: &[u8], now: Instant) {
        let group = ip.destination.is_multicast() || is_broadcast(ip.destination);
        if !group && !is_error(packet, ip) {
            let error = build::error(ip, packet, Unreachable::Prohibited);
            self.shared.send(&error);
        }
        if let Some(packet) = nflog::parse(packet)
            && self.recent.is_news(&packet, now)
        {
            self.handler.rejected(packet);
        }
    }
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(ip) if ip.is_broadcast())
}

/// Whether this is an ICMP error. One must not cause another (RFC 1122 section 3.2.2).
fn is_error(packet: &[u8], ip: &Ip) -> bool {
    let kind = packet.get(ip.header).copied().unwrap_or_default();
    match ip.protocol {
        ICMP => !matches!(kind, 0 | 8 | 13..=18),
        ICMPV6 => kind < 128,
        _ => false,
    }
}

/// Returns the UDP flow whose datagram found no socket, from the kernel's ICMP error.
fn about_our_answer(ip: &Ip, kind: u8, code: u8, quoted: &[u8]) -> Option<Option<UdpFlowKey>> {
    match (ip.protocol, kind, code) {
        (ICMP, 3, _) | (ICMPV6, 1, _) => {}
        _ => return None,
    }
    // The quoted packet is cut off: its length field does not match.
    let header = match quoted.first()? >> 4 {
        4 => 20,
        6 => 40,
        _ => return None,
    };
    let packet = nflog::parse(quoted)?;
    if packet.destination.ip() != ip.source {
        return None;
    }
    let ports = quoted.get(header..header + 4)?;
    let source = u16::from_be_bytes([*ports.first()?, *ports.get(1)?]);
    Some((packet.protocol == UDP).then(|| UdpFlowKey {
        client: ClientAddr(packet.destination),
        original: OrigDst(SocketAddr::new(ip.destination, source)),
    }))
}

/// Whether this is a multicast report of the kernel (MLD): ICMPv6 after a hop-by-hop header.
fn is_listener_report(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 6)
        && packet.get(6) == Some(&0)
        && packet.get(40) == Some(&ICMPV6)
        && matches!(packet.get(48), Some(130..=132 | 143))
}
