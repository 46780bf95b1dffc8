//! The encoder of headers.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::v2::SIGNATURE;

/// Additional information about a connection, in version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tlv<'a> {
    kind: u8,
    value: &'a [u8],
}

impl<'a> Tlv<'a> {
    /// The protocol that ALPN selected (`PP2_TYPE_ALPN`).
    #[must_use]
    pub fn alpn(protocol: &'a [u8]) -> Self {
        Self {
            kind: 0x01,
            value: protocol,
        }
    }

    /// The server name that the client sent (`PP2_TYPE_AUTHORITY`).
    #[must_use]
    pub fn authority(name: &'a str) -> Self {
        Self {
            kind: 0x02,
            value: name.as_bytes(),
        }
    }
}

/// A line of version 1. It leaves out addresses of different families.
#[must_use]
pub fn write_v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let family = match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
        (IpAddr::V6(_), IpAddr::V6(_)) => "TCP6",
        _ => return b"PROXY UNKNOWN\r\n".to_vec(),
    };
    let (source, destination) = (source.port(), destination.port());
    format!("PROXY {family} {from} {to} {source} {destination}\r\n").into_bytes()
}

/// A header of version 2.
///
/// Addresses of different families are both written as IPv6. TLVs that do not fit into 64 KiB are
/// left out.
#[must_use]
pub fn write_v2(source: SocketAddr, destination: SocketAddr, tlvs: &[Tlv<'_>]) -> Vec<u8> {
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let mut content = Vec::with_capacity(64);
    let family = if let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) {
        content.extend_from_slice(&from.octets());
        content.extend_from_slice(&to.octets());
        0x11
    } else {
        content.extend_from_slice(&as_v6(from).octets());
        content.extend_from_slice(&as_v6(to).octets());
        0x21
    };
    content.extend_from_slice(&source.port().to_be_bytes());
    content.extend_from_slice(&destination.port().to_be_bytes());
    for tlv in tlvs {
        let fits = content.len() + 3 + tlv.value.len() <= usize::from(u16::MAX);
        if let (true, Ok(length)) = (fits, u16::try_from(tlv.value.len())) {
            content.push(tlv.kind);
            content.extend_from_slice(&length.to_be_bytes());
            content.extend_from_slice(tlv.value);
        }
    }
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    let head = [0x21, family];
    [&SIGNATURE[..], &head, &length.to_be_bytes(), &content].concat()
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
