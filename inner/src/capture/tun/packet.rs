//! Parses the app's packets as they come from the kernel.
//!
//! The kernel built the headers, but an app with raw sockets, odd options or odd sizes has
//! influence on them. No length is trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// ICMP.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// The fragment header of IPv6.
pub const FRAGMENT: u8 = 44;
/// ICMPv6.
pub const ICMPV6: u8 = 58;

/// FIN, SYN, RST and ACK in the flags of TCP.
pub const FIN: u8 = 0x01;
/// See [`FIN`].
pub const SYN: u8 = 0x02;
/// See [`FIN`].
pub const RST: u8 = 0x04;
/// See [`FIN`].
pub const ACK: u8 = 0x10;

/// Length of an IPv4 header without options.
pub const V4_HEADER: usize = 20;
/// Length of the fixed IPv6 header.
pub const V6_HEADER: usize = 40;

/// The network header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Length of the header.
    pub header: usize,
}

/// The fields of a TCP header that capture needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number of the first byte.
    pub sequence: u32,
    /// Acknowledgement number; valid only with [`ACK`].
    pub acknowledged: u32,
    /// Flags.
    pub flags: u8,
    /// Length of the header.
    pub header: usize,
    /// Bytes of data.
    pub data: usize,
}

/// The content of a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A TCP segment.
    Tcp(Ip, Tcp),
    /// A UDP datagram: source port, destination port, data.
    Udp(Ip, u16, u16, &'a [u8]),
    /// A fragment of IPv6: offset, whether more follow, identification, protocol, data.
    Fragment(Ip, Fragment<'a>),
    /// ICMP or ICMPv6: type, code, and the bytes after the eight-byte header.
    Icmp(Ip, u8, u8, &'a [u8]),
    /// A packet that capture does not carry.
    Other(Ip),
}

/// A fragment of an IPv6 packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Offset of the data in the whole packet, in bytes.
    pub offset: usize,
    /// Whether more fragments follow.
    pub more: bool,
    /// Identification of the whole packet.
    pub identification: u32,
    /// Protocol of the whole packet.
    pub protocol: u8,
    /// The data of this fragment.
    pub data: &'a [u8],
}

/// Parses a packet. `None` when it is no IP packet, or a length in it is wrong.
pub fn parse(packet: &[u8]) -> Option<Parsed<'_>> {
    let ip = ip(packet)?;
    let body = packet.get(ip.header..)?;
    Some(match ip.protocol {
        TCP => tcp(body).map_or(Parsed::Other(ip), |tcp| Parsed::Tcp(ip, tcp)),
        UDP => udp(body).map_or(Parsed::Other(ip), |(source, destination, data)| {
            Parsed::Udp(ip, source, destination, data)
        }),
        FRAGMENT if ip.source.is_ipv6() => {
            fragment(body).map_or(Parsed::Other(ip), |part| Parsed::Fragment(ip, part))
        }
        ICMP | ICMPV6 => match (body.first(), body.get(1), body.get(8..)) {
            (Some(kind), Some(code), Some(rest)) => Parsed::Icmp(ip, *kind, *code, rest),
            _ => Parsed::Other(ip),
        },
        _ => Parsed::Other(ip),
    })
}

fn ip(packet: &[u8]) -> Option<Ip> {
    match packet.first()? >> 4 {
        4 => ip_v4(packet),
        6 => ip_v6(packet),
        _ => None,
    }
}

fn ip_v4(packet: &[u8]) -> Option<Ip> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    if header < V4_HEADER || word(packet, 2)? as usize != packet.len() {
        return None;
    }
    let at = |offset: usize| -> Option<[u8; 4]> { packet.get(offset..offset + 4)?.try_into().ok() };
    // Fragments do not occur at this MTU, and options such as source routes are not allowed in a
    // flow. The payload of such a packet counts as neither TCP nor UDP.
    let plain = header == V4_HEADER && word(packet, 6)? & 0x3fff == 0;
    let protocol = *packet.get(9)?;
    Some(Ip {
        source: Ipv4Addr::from(at(12)?).into(),
        destination: Ipv4Addr::from(at(16)?).into(),
        protocol: if plain { protocol } else { 0xff },
        header,
    })
}

fn ip_v6(packet: &[u8]) -> Option<Ip> {
    if V6_HEADER + word(packet, 4)? as usize != packet.len() {
        return None;
    }
    let at =
        |offset: usize| -> Option<[u8; 16]> { packet.get(offset..offset + 16)?.try_into().ok() };
    Some(Ip {
        source: Ipv6Addr::from(at(8)?).into(),
        destination: Ipv6Addr::from(at(24)?).into(),
        protocol: *packet.get(6)?,
        header: V6_HEADER,
    })
}

fn tcp(body: &[u8]) -> Option<Tcp> {
    let header = usize::from(*body.get(12)? >> 4) * 4;
    if header < 20 {
        return None;
    }
    Some(Tcp {
        source: word(body, 0)?,
        destination: word(body, 2)?,
        sequence: double(body, 4)?,
        acknowledged: double(body, 8)?,
        flags: *body.get(13)?,
        header,
        data: body.len().checked_sub(header)?,
    })
}

/// Parses a datagram. Its length field may cover less than the packet holds, not more.
pub fn udp(body: &[u8]) -> Option<(u16, u16, &[u8])> {
    let length = usize::from(word(body, 4)?);
    Some((word(body, 0)?, word(body, 2)?, body.get(8..length)?))
}

fn fragment(body: &[u8]) -> Option<Fragment<'_>> {
    let place = word(body, 2)?;
    Some(Fragment {
        offset: usize::from(place & 0xfff8),
        more: place & 1 == 1,
        identification: double(body, 4)?,
        protocol: *body.first()?,
        data: body.get(8..)?,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn double(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
