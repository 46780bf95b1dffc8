//! Serves DNS at local addresses: a query to 127.0.0.53 never reaches the device.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::{fs, io};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use crate::capture::routes::OwnAddresses;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;
/// Name servers read from resolv.conf; the C libraries read three.
const MAX_SERVERS: usize = 8;

/// Opens port 53 at the own addresses, 127.0.0.1, ::1 and the loopback addresses of resolv.conf. An
/// address where another process listens already is left to it; the queries that it forwards come
/// through the device.
pub(super) fn open(own: OwnAddresses) -> Vec<(UdpSocket, TcpListener)> {
    let text = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let own_addresses = [Some(own.v4.into()), own.v6.map(IpAddr::V6)];
    let mut sockets = Vec::new();
    for address in own_addresses.into_iter().flatten().chain(addresses(&text)) {
        if address.is_ipv6() && own.v6.is_none() {
            continue;
        }
        match listen(SocketAddr::new(address, DNS_PORT)) {
            Ok(pair) => sockets.push(pair),
            Err(error) => {
                tracing::info!(%address, %error, "cannot listen for DNS at a local address")
            }
        }
    }
    sockets
}

fn addresses(resolv_conf: &str) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>)
            && address.is_loopback()
            && !addresses.contains(&address)
            && addresses.len() < MAX_SERVERS
        {
            addresses.push(address);
        }
    }
    addresses
}

fn listen(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let bound = |kind: Type, protocol| {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, kind.nonblocking(), Some(protocol))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if kind == Type::STREAM {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())?;
        io::Result::Ok(socket)
    };
    let udp = bound(Type::DGRAM, Protocol::UDP)?;
    let tcp = bound(Type::STREAM, Protocol::TCP)?;
    tcp.listen(1024)?;
    Ok((
        UdpSocket::from_std(udp.into())?,
        TcpListener::from_std(tcp.into())?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_name_servers_are_found() {
        let text = "# nameserver 127.0.0.9\nnameserver 127.0.0.53\nnameserver 8.8.8.8\n\
                    options edns0\nnameserver ::1\nnameserver 127.0.0.11 \nnameserver x\n";
        let found: Vec<String> = addresses(text).iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["127.0.0.1", "::1", "127.0.0.53", "127.0.0.11"]);
    }

    #[test]
    fn their_number_is_bounded() {
        let many: String = (0..255)
            .map(|n| format!("nameserver 127.1.1.{n}\n"))
            .collect();
        assert_eq!(addresses(&many).len(), MAX_SERVERS);
    }
}
