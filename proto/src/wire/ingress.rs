//! Requests of the host to a guest on a reversed connection, and the answers.
//!
//! The answer to `GET /ingress` has the guest's identity and the ports on which it wants clients. A
//! client's connection is a CONNECT to `ingress:PORT`, with the addresses of both ends.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use crate::identity::{GuestName, Identity, RunId};

/// Path of the first request.
pub const PATH: &str = "/ingress";

/// Header with the wanted ports: a comma-separated list of numbers.
///
/// Parameters after a semicolon (RFC 9651 section 3.1.2) are left to later versions.
pub const PORTS: &str = "odyn-ports";

/// Header with the client's address.
pub const CLIENT: &str = "odyn-client";

/// Header with the address that the client connected to.
pub const LOCAL: &str = "odyn-local";

/// Host part of the `:authority` of a client's connection.
const HOST: &str = "ingress";

/// Most ports of one guest.
pub const MAX_PORTS: usize = 1024;

/// The identity and the ports of a guest on a reversed connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressHello {
    /// The identity that the guest claims.
    pub identity: Identity,
    /// The ports on which its policy wants clients.
    pub ports: Vec<NonZeroU16>,
}

/// A client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incoming {
    /// The port of the policy, not of the host's socket.
    pub port: NonZeroU16,
    /// The client's address, which the host claims.
    pub client: SocketAddr,
    /// The address that the client connected to, which the host claims.
    pub local: SocketAddr,
}

/// Why a header cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IngressError {
    /// The name is missing or malformed.
    #[error("no name of a guest")]
    Name,
    /// The run is missing or malformed.
    #[error("no run of a guest")]
    Run,
    /// The list of ports is missing, malformed or too long.
    #[error("no list of ports")]
    Ports,
    /// The authority is not `ingress:PORT`.
    #[error("not a port of ingress")]
    Authority,
    /// An address of a client's connection is missing or malformed.
    #[error("no address of a client")]
    Address,
}

impl Incoming {
    /// A connection. Addresses lose their scopes, and IPv4-mapped ones become IPv4.
    pub fn new(port: NonZeroU16, client: SocketAddr, local: SocketAddr) -> Self {
        Self {
            port,
            client: plain(client),
            local: plain(local),
        }
    }
}

fn plain(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}

/// Reads the hello from headers.
///
/// # Errors
/// A header is missing or malformed.
pub fn parse_hello(
    name: Option<&[u8]>,
    run: Option<&[u8]>,
    ports: Option<&[u8]>,
) -> Result<IngressHello, IngressError> {
    let text = |value: Option<&[u8]>| std::str::from_utf8(value?).ok().map(str::to_owned);
    let name: GuestName = text(name)
        .and_then(|name| name.parse().ok())
        .ok_or(IngressError::Name)?;
    let run: RunId = text(run)
        .and_then(|run| run.parse().ok())
        .ok_or(IngressError::Run)?;
    let ports = text(ports)
        .and_then(|ports| parse_ports(&ports))
        .ok_or(IngressError::Ports)?;
    Ok(IngressHello {
        identity: Identity { name, run },
        ports,
    })
}

/// Reads ports in ascending order, each once; the list may be empty.
fn parse_ports(list: &str) -> Option<Vec<NonZeroU16>> {
    let mut ports = Vec::new();
    if list.trim().is_empty() {
        return Some(ports);
    }
    for item in list.split(',') {
        if ports.len() >= MAX_PORTS {
            return None;
        }
        let number = item.split(';').next().unwrap_or_default();
        ports.push(parse_port(number.trim_matches([' ', '\t']))?);
    }
    ports.sort_unstable();
    ports.dedup();
    Some(ports)
}

/// A decimal number without a sign.
fn parse_port(text: &str) -> Option<NonZeroU16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// The value of [`PORTS`]; ports beyond [`MAX_PORTS`] are left out.
pub fn write_ports(ports: &[NonZeroU16]) -> String {
    let list: Vec<String> = ports
        .iter()
        .take(MAX_PORTS)
        .map(ToString::to_string)
        .collect();
    list.join(", ")
}

/// Reads the client's connection from a CONNECT request.
///
/// # Errors
/// The authority or one of the headers [`CLIENT`] and [`LOCAL`] is malformed.
pub fn parse_incoming(
    authority: &str,
    client: Option<&[u8]>,
    local: Option<&[u8]>,
) -> Result<Incoming, IngressError> {
    let port = authority
        .strip_prefix(HOST)
        .and_then(|rest| rest.strip_prefix(':'))
        .and_then(parse_port)
        .ok_or(IngressError::Authority)?;
    let address = |value: Option<&[u8]>| {
        value
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .and_then(|text| text.parse().ok())
            .ok_or(IngressError::Address)
    };
    Ok(Incoming::new(port, address(client)?, address(local)?))
}

/// The `:authority` of a client's connection.
pub fn write_authority(port: NonZeroU16) -> String {
    format!("{HOST}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &[u8] = b"00112233445566778899aabbccddeeff";

    fn ports(list: &[u16]) -> Vec<NonZeroU16> {
        list.iter().map(|p| NonZeroU16::new(*p).unwrap()).collect()
    }

    #[test]
    fn a_hello_is_read() {
        for (list, expected) in [
            ("", vec![]),
            ("443", vec![443]),
            ("8443, 443,443", vec![443, 8443]),
            ("443;tls;x=\"y\", 80", vec![80, 443]),
        ] {
            let hello = parse_hello(Some(b"shop"), Some(RUN), Some(list.as_bytes())).unwrap();
            assert_eq!(hello.identity.name.as_str(), "shop");
            assert_eq!(hello.ports, ports(&expected), "{list}");
            let written = write_ports(&hello.ports);
            assert_eq!(parse_ports(&written), Some(hello.ports));
        }
    }

    #[test]
    fn a_malformed_hello_is_refused() {
        for list in ["443,", "0", "-1", "+1", "65536", "443 444", "443,,444", "x"] {
            let hello = parse_hello(Some(b"shop"), Some(RUN), Some(list.as_bytes()));
            assert_eq!(hello, Err(IngressError::Ports), "{list}");
        }
        let many = vec!["1"; MAX_PORTS + 1].join(",");
        assert_eq!(parse_ports(&many), None);
        assert_eq!(
            parse_hello(Some(b"a b"), Some(RUN), Some(b"1")),
            Err(IngressError::Name)
        );
        assert_eq!(
            parse_hello(Some(b"a"), None, Some(b"1")),
            Err(IngressError::Run)
        );
        assert_eq!(
            parse_hello(Some(b"\xff"), Some(RUN), Some(b"1")),
            Err(IngressError::Name)
        );
    }

    #[test]
    fn a_client_is_written_and_read() {
        let port = NonZeroU16::new(443).unwrap();
        for (client, local) in [
            ("203.0.113.9:40000", "192.0.2.2:8443"),
            ("[2001:db8::9]:1", "[2001:db8::2]:2"),
            ("[::ffff:192.0.2.1]:1", "[fe80::1%3]:2"),
        ] {
            let incoming = Incoming::new(port, client.parse().unwrap(), local.parse().unwrap());
            let authority = write_authority(port);
            authority.parse::<http::uri::Authority>().unwrap();
            let (client, local) = (incoming.client.to_string(), incoming.local.to_string());
            let read = parse_incoming(&authority, Some(client.as_bytes()), Some(local.as_bytes()));
            assert_eq!(read, Ok(incoming));
        }
    }

    #[test]
    fn a_malformed_client_is_refused() {
        let good = Some(b"192.0.2.1:1".as_slice());
        for authority in [
            "",
            "ingress",
            "ingress:",
            "ingress:0",
            "ingress:+1",
            "host:1",
        ] {
            let read = parse_incoming(authority, good, good);
            assert_eq!(read, Err(IngressError::Authority), "{authority}");
        }
        for address in [
            None,
            Some(b"192.0.2.1".as_slice()),
            Some(b"\xff"),
            Some(b""),
        ] {
            let read = parse_incoming("ingress:1", address, good);
            assert_eq!(read, Err(IngressError::Address));
        }
    }
}
