//! Sends ICMP "port unreachable" for a refused datagram (RFC 792, RFC 4443). A connected UDP socket
//! sees it as ECONNREFUSED.
//!
//! The tproxy listener has already accepted the datagram, so the kernel sends no error. odyn-net
//! sends the one that a closed port would have caused.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::checksum::Sum;
use crate::capture::udp_recv::UdpFlowKey;

const UDP: u8 = 17;
const UDP_HEADER: u16 = 8;
const V4_HEADER: u16 = 20;

/// Raw sockets for the errors of both families.
pub struct Refusals {
    v4: Socket,
    v6: Option<Socket>,
}

impl Refusals {
    /// Opens the raw sockets.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing.
    pub fn open(with_ipv6: bool) -> io::Result<Self> {
        let open = |domain, protocol| Socket::new(domain, Type::RAW.nonblocking(), Some(protocol));
        Ok(Self {
            v4: open(Domain::IPV4, Protocol::ICMPV4)?,
            v6: with_ipv6
                .then(|| open(Domain::IPV6, Protocol::ICMPV6))
                .transpose()?,
        })
    }

    /// Refuses a datagram of `length` payload bytes. Best effort, as ICMP is: a full socket buffer
    /// loses the error.
    pub fn port_unreachable(&self, route: UdpFlowKey, length: usize) {
        let to = SocketAddr::new(route.client.ip(), 0);
        let sent = match (route.client.ip(), route.original.ip()) {
            (IpAddr::V4(from), IpAddr::V4(dst)) => self
                .v4
                .send_to(&icmpv4(from, dst, route, length), &to.into()),
            (IpAddr::V6(from), IpAddr::V6(dst)) => match &self.v6 {
                Some(socket) => socket.send_to(&icmpv6(from, dst, route, length), &to.into()),
                None => return,
            },
            _ => return,
        };
        if let Err(error) = sent {
            tracing::debug!(%error, client = %route.client, "cannot send an ICMP error");
        }
    }
}

/// ICMP type 3, code 3, with the start of the refused packet.
fn icmpv4(from: Ipv4Addr, to: Ipv4Addr, route: UdpFlowKey, length: usize) -> Vec<u8> {
    let udp = udp_header(route, length);
    let total = u16::from_be_bytes([udp[4], udp[5]]).saturating_add(V4_HEADER);
    let mut packet = vec![3, 3, 0, 0, 0, 0, 0, 0];
    packet.extend([0x45, 0]);
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let header_sum = checksum(&packet[8..28]);
    packet[18..20].copy_from_slice(&header_sum.to_be_bytes());
    packet.extend(udp);
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// ICMPv6 type 1, code 4. The kernel fills the checksum in.
fn icmpv6(from: Ipv6Addr, to: Ipv6Addr, route: UdpFlowKey, length: usize) -> Vec<u8> {
    let udp = udp_header(route, length);
    let mut packet = vec![1, 4, 0, 0, 0, 0, 0, 0];
    packet.extend([0x60, 0, 0, 0]);
    packet.extend([udp[4], udp[5], UDP, 64]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(udp);
    packet
}

/// The UDP header of the datagram. Checksum 0 means "none", and the receiver of an ICMP error does
/// not check it.
fn udp_header(route: UdpFlowKey, length: usize) -> [u8; 8] {
    let length = u16::try_from(length)
        .unwrap_or(u16::MAX)
        .saturating_add(UDP_HEADER);
    let [s0, s1] = route.client.port().to_be_bytes();
    let [d0, d1] = route.original.port().to_be_bytes();
    let [l0, l1] = length.to_be_bytes();
    [s0, s1, d0, d1, l0, l1, 0, 0]
}

fn checksum(bytes: &[u8]) -> u16 {
    Sum::default().bytes(bytes).checksum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(client: &str, original: &str) -> UdpFlowKey {
        UdpFlowKey {
            client: client.parse().unwrap(),
            original: original.parse().unwrap(),
        }
    }

    #[test]
    fn ipv4_error_is_well_formed() {
        let r = route("198.18.0.1:40000", "203.0.113.9:53");
        let packet = icmpv4([198, 18, 0, 1].into(), [203, 0, 113, 9].into(), r, 5);
        assert_eq!(packet.len(), 8 + 20 + 8);
        // A packet that contains its own checksum sums to zero.
        assert_eq!(checksum(&packet), 0);
        assert_eq!(checksum(&packet[8..28]), 0);
        assert_eq!(packet[10..12], 33u16.to_be_bytes());
        assert_eq!(packet[28..30], 40000u16.to_be_bytes());
        assert_eq!(packet[30..32], 53u16.to_be_bytes());
    }

    #[test]
    fn ipv6_error_names_both_ends() {
        let r = route("[fd6f::1]:40000", "[2001:db8::9]:443");
        let packet = icmpv6(
            "fd6f::1".parse().unwrap(),
            "2001:db8::9".parse().unwrap(),
            r,
            5,
        );
        assert_eq!(packet.len(), 8 + 40 + 8);
        assert_eq!(packet[8 + 6], UDP);
        assert_eq!(packet[8 + 24], 0x20);
        assert_eq!(packet[48 + 2..48 + 4], 443u16.to_be_bytes());
    }

    #[test]
    fn oversize_length_saturates() {
        let r = route("198.18.0.1:1", "203.0.113.9:2");
        assert_eq!(udp_header(r, 70_000)[4..6], [0xff, 0xff]);
    }
}
