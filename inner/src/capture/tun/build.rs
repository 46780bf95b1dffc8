//! Builds the packets that odyn-net sends to the app.

use std::net::{IpAddr, SocketAddr};

use super::packet::{ACK, ICMP, ICMPV6, Ip, RST, SYN, TCP, Tcp, UDP, V4_HEADER, V6_HEADER};
use crate::capture::checksum::Sum;
use crate::capture::udp_recv::UdpFlowKey;

const UDP_HEADER: usize = 8;
/// Bytes of the refused packet in an ICMP error, at most. The error stays within the smallest MTU
/// of its family (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4).
const QUOTE_V4: usize = 576 - V4_HEADER - 8;
const QUOTE_V6: usize = 1280 - V6_HEADER - 8;

/// The reasons in an ICMP "unreachable", with the error that the app sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// No route: ENETUNREACH.
    Network,
    /// EHOSTUNREACH.
    Host,
    /// ECONNREFUSED.
    Port,
    /// Administratively prohibited: EHOSTUNREACH over IPv4, EACCES over IPv6.
    Prohibited,
}

impl Unreachable {
    /// ICMP type and code (RFC 792, RFC 1812; RFC 4443).
    const fn code(self, ipv4: bool) -> (u8, u8) {
        match (self, ipv4) {
            (Unreachable::Network, true) => (3, 0),
            (Unreachable::Host, true) => (3, 1),
            (Unreachable::Port, true) => (3, 3),
            (Unreachable::Prohibited, true) => (3, 13),
            (Unreachable::Network, false) => (1, 0),
            (Unreachable::Host, false) => (1, 3),
            (Unreachable::Port, false) => (1, 4),
            (Unreachable::Prohibited, false) => (1, 1),
        }
    }
}

/// Appends the network header for a body of this length.
fn ip_header(packet: &mut Vec<u8>, from: IpAddr, to: IpAddr, protocol: u8, body: usize) {
    let start = packet.len();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = u16::try_from(V4_HEADER + body).unwrap_or(u16::MAX);
            packet.extend([0x45, 0]);
            packet.extend(total.to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            let sum = Sum::default().bytes(packet.get(start..).unwrap_or_default());
            put(packet, start + 10, sum.checksum());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = u16::try_from(body).unwrap_or(u16::MAX);
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        // The caller passes two addresses of one family.
        _ => {}
    }
}

fn put(packet: &mut [u8], at: usize, word: u16) {
    if let Some(field) = packet.get_mut(at..at + 2) {
        field.copy_from_slice(&word.to_be_bytes());
    }
}

/// A TCP packet without options.
pub fn tcp_packet(
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    data: &[u8],
    partial: bool,
) -> Vec<u8> {
    let length = 20 + data.len();
    let mut packet = Vec::with_capacity(V6_HEADER + length);
    ip_header(&mut packet, from.ip(), to.ip(), TCP, length);
    let start = packet.len();
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(acknowledged.to_be_bytes());
    packet.extend([5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    packet.extend(data);
    let pseudo = Sum::default().pseudo(from.ip(), to.ip(), TCP, length);
    let sum = if partial {
        pseudo.folded()
    } else {
        pseudo
            .bytes(packet.get(start..).unwrap_or_default())
            .checksum()
    };
    put(&mut packet, start + 16, sum);
    packet
}

/// Builds the reset that answers a segment to a closed port (RFC 9293 section 3.10.7.1). `None` for
/// a reset, which gets no answer.
pub fn reset(ip: &Ip, tcp: &Tcp) -> Option<Vec<u8>> {
    if tcp.flags & RST != 0 {
        return None;
    }
    let from = SocketAddr::new(ip.destination, tcp.destination);
    let to = SocketAddr::new(ip.source, tcp.source);
    let (sequence, acknowledged, flags) = if tcp.flags & ACK != 0 {
        (tcp.acknowledged, 0, RST)
    } else {
        let taken = tcp.data as u32 + u32::from(tcp.flags & SYN != 0);
        (0, tcp.sequence.wrapping_add(taken), RST | ACK)
    };
    Some(tcp_packet(
        from,
        to,
        sequence,
        acknowledged,
        flags,
        &[],
        false,
    ))
}

/// Builds a SYN from the headers of another, with complete checksums. Its data (TCP Fast Open) are
/// left out: a listener without the option would not take them, and the app's kernel sends them
/// again.
pub fn bare_syn(packet: &[u8], ip: &Ip, tcp: &Tcp) -> Vec<u8> {
    let headers = packet.get(..ip.header + tcp.header);
    let mut syn = headers.unwrap_or_default().to_vec();
    let (total, body) = (syn.len() as u16, tcp.header as u16);
    if ip.source.is_ipv4() {
        put(&mut syn, 2, total);
        put(&mut syn, 10, 0);
        let sum = Sum::default().bytes(syn.get(..ip.header).unwrap_or_default());
        put(&mut syn, 10, sum.checksum());
    } else {
        put(&mut syn, 4, body);
    }
    put(&mut syn, ip.header + 16, 0);
    let sum = Sum::default()
        .pseudo(ip.source, ip.destination, TCP, tcp.header)
        .bytes(syn.get(ip.header..).unwrap_or_default());
    put(&mut syn, ip.header + 16, sum.checksum());
    syn
}

/// Builds the ICMP error about a packet, from its destination to its sender.
pub fn error(ip: &Ip, packet: &[u8], why: Unreachable) -> Vec<u8> {
    let ipv4 = ip.source.is_ipv4();
    let (limit, protocol) = if ipv4 {
        (QUOTE_V4, ICMP)
    } else {
        (QUOTE_V6, ICMPV6)
    };
    let quote = packet.get(..limit).unwrap_or(packet);
    let length = 8 + quote.len();
    let (kind, code) = why.code(ipv4);
    let mut error = Vec::with_capacity(V6_HEADER + length);
    ip_header(&mut error, ip.destination, ip.source, protocol, length);
    let start = error.len();
    error.extend([kind, code, 0, 0, 0, 0, 0, 0]);
    error.extend(quote);
    let mut sum = Sum::default().bytes(error.get(start..).unwrap_or_default());
    if !ipv4 {
        sum = sum.pseudo(ip.destination, ip.source, ICMPV6, length);
    }
    put(&mut error, start + 2, sum.checksum());
    error
}

/// Builds "port unreachable" about a datagram of `length` bytes without its packet.
pub fn port_unreachable(route: UdpFlowKey, length: usize) -> Vec<u8> {
    let (from, to) = (route.client.0, route.original.0);
    let length = length.min(usize::from(u16::MAX) - UDP_HEADER);
    let mut packet = Vec::with_capacity(V6_HEADER + UDP_HEADER);
    ip_header(&mut packet, from.ip(), to.ip(), UDP, UDP_HEADER + length);
    let header = packet.len();
    packet.extend(udp_header(from, to, length));
    let ip = Ip {
        source: from.ip(),
        destination: to.ip(),
        protocol: UDP,
        header,
    };
    error(&ip, &packet, Unreachable::Port)
}

/// Builds the headers of an answer to the app. `None` when the data do not fit into a datagram.
///
/// With `partial` the checksum holds the pseudo-header only: the kernel that gets the packet does
/// not need more.
pub fn udp_answer(route: UdpFlowKey, data: &[u8], partial: bool) -> Option<Vec<u8>> {
    let (from, to) = (route.original.0, route.client.0);
    let headers = if from.is_ipv4() { V4_HEADER } else { 0 } + UDP_HEADER;
    if headers + data.len() > usize::from(u16::MAX) {
        return None;
    }
    let mut packet = Vec::with_capacity(V6_HEADER + UDP_HEADER);
    let length = UDP_HEADER + data.len();
    ip_header(&mut packet, from.ip(), to.ip(), UDP, length);
    let start = packet.len();
    let header = udp_header(from, to, data.len());
    packet.extend(header);
    let pseudo = Sum::default().pseudo(from.ip(), to.ip(), UDP, length);
    let sum = if partial {
        pseudo.folded()
    } else {
        // Zero would mean "no checksum" (RFC 768).
        match pseudo.bytes(&header).bytes(data).checksum() {
            0 => 0xffff,
            sum => sum,
        }
    };
    put(&mut packet, start + 6, sum);
    Some(packet)
}

fn udp_header(from: SocketAddr, to: SocketAddr, data: usize) -> [u8; UDP_HEADER] {
    let length = u16::try_from(data + UDP_HEADER).unwrap_or(u16::MAX);
    let ([s0, s1], [d0, d1]) = (from.port().to_be_bytes(), to.port().to_be_bytes());
    let [l0, l1] = length.to_be_bytes();
    [s0, s1, d0, d1, l0, l1, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::super::packet::{Parsed, parse};
    use super::super::rewrite::is_sound;
    use super::*;

    fn route(client: &str, original: &str) -> UdpFlowKey {
        UdpFlowKey {
            client: client.parse().unwrap(),
            original: original.parse().unwrap(),
        }
    }

    const ROUTES: [(&str, &str); 2] = [
        ("198.18.0.1:40000", "203.0.113.9:53"),
        ("[fd6f::1]:40000", "[2001:db8::9]:53"),
    ];

    #[test]
    fn a_reset_answers_the_syn() {
        for (client, original) in ROUTES {
            let r = route(client, original);
            let syn = tcp_packet(*r.client, *r.original, 99, 0, SYN, b"", false);
            let Some(Parsed::Tcp(ip, tcp)) = parse(&syn) else {
                panic!("not TCP");
            };
            let answer = reset(&ip, &tcp).unwrap();
            let Some(Parsed::Tcp(ip, tcp)) = parse(&answer) else {
                panic!("not TCP");
            };
            assert!(is_sound(&answer, &ip, false));
            assert_eq!(tcp.flags, RST | ACK);
            assert_eq!(tcp.acknowledged, 100);
            assert_eq!(SocketAddr::new(ip.source, tcp.source), *r.original);
            assert_eq!(reset(&ip, &tcp), None, "a reset is not answered");
        }
    }

    #[test]
    fn a_bare_syn_is_sound_whatever_it_was() {
        for (client, original) in ROUTES {
            let r = route(client, original);
            for (data, partial) in [(&b""[..], true), (b"early", false), (b"early", true)] {
                let syn = tcp_packet(*r.client, *r.original, 99, 0, SYN, data, partial);
                let Some(Parsed::Tcp(ip, tcp)) = parse(&syn) else {
                    panic!("not TCP");
                };
                let bare = bare_syn(&syn, &ip, &tcp);
                let Some(Parsed::Tcp(ip, tcp)) = parse(&bare) else {
                    panic!("not TCP");
                };
                assert_eq!((tcp.data, tcp.sequence, tcp.flags), (0, 99, SYN));
                assert!(is_sound(&bare, &ip, false));
            }
        }
    }

    #[test]
    fn errors_quote_the_packet_and_add_up() {
        for (client, original) in ROUTES {
            let error = port_unreachable(route(client, original), 5);
            let Some(Parsed::Icmp(ip, _, _, quoted)) = parse(&error) else {
                panic!("not ICMP");
            };
            let body = &error[ip.header..];
            let mut sum = Sum::default().bytes(body);
            if ip.source.is_ipv6() {
                sum = sum.pseudo(ip.source, ip.destination, ICMPV6, body.len());
            }
            assert_eq!(sum.checksum(), 0);
            assert_eq!(ip.destination, client.parse::<SocketAddr>().unwrap().ip());
            assert_eq!(&quoted[quoted.len() - 8..][..2], 40000u16.to_be_bytes());
        }
    }

    #[test]
    fn answers_have_a_sound_checksum() {
        for (client, original) in ROUTES {
            let r = route(client, original);
            let mut packet = udp_answer(r, b"hello", false).unwrap();
            packet.extend(b"hello");
            let Some(Parsed::Udp(ip, from, to, data)) = parse(&packet) else {
                panic!("not UDP");
            };
            assert_eq!((from, to, data), (53, 40000, &b"hello"[..]));
            let body = &packet[ip.header..];
            let sum = Sum::default()
                .bytes(body)
                .pseudo(ip.source, ip.destination, UDP, body.len());
            assert_eq!(sum.checksum(), 0);
        }
    }

    #[test]
    fn what_does_not_fit_is_not_sent() {
        let [(v4, to4), (v6, to6)] = ROUTES;
        assert!(udp_answer(route(v4, to4), &[0; 65_507], true).is_some());
        assert!(udp_answer(route(v4, to4), &[0; 65_508], true).is_none());
        assert!(udp_answer(route(v6, to6), &[0; 65_527], true).is_some());
        assert!(udp_answer(route(v6, to6), &[0; 65_528], true).is_none());
    }
}
