//! Opens the sockets that captured traffic arrives at.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::sockopt;
use odyn_proto::{ClientAddr, OrigDst};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use super::nft::Steering;

/// The search for free ports goes down from here. This is above the default ephemeral range
/// (32768–60999) and away from the ports that programs listen on.
const FIRST_PORT: u16 = 65_499;
/// Ports that the search tries.
const PORTS_TRIED: u16 = 512;
/// Connections that the kernel completes before we accept them; capped by net.core.somaxconn.
const BACKLOG: i32 = 16_384;
/// Receive buffer, in bytes, of the socket that gets the first datagram of every flow.
const UDP_RECEIVE_BUFFER: usize = 4 << 20;

/// The listeners of one address family.
pub struct FamilySockets {
    /// Redirected TCP connections.
    pub tcp: TcpListener,
    /// Captured UDP datagrams, with their original destinations.
    pub udp: UdpSocket,
    /// DNS over UDP.
    pub dns_udp: UdpSocket,
    /// DNS over TCP.
    pub dns_tcp: TcpListener,
}

impl FamilySockets {
    /// Opens the four sockets on an address of `lo`.
    ///
    /// # Errors
    /// No port is free, or a transparent socket is not allowed (CAP_NET_ADMIN).
    pub fn open(own: IpAddr) -> io::Result<Self> {
        Ok(Self {
            tcp: TcpListener::from_std(bind(own, Type::STREAM, |_| Ok(()))?.into())?,
            udp: UdpSocket::from_std(bind(own, Type::DGRAM, transparent)?.into())?,
            dns_udp: UdpSocket::from_std(bind(own, Type::DGRAM, |_| Ok(()))?.into())?,
            dns_tcp: TcpListener::from_std(bind(own, Type::STREAM, |_| Ok(()))?.into())?,
        })
    }

    /// The addresses for the rules.
    ///
    /// # Errors
    /// A socket has no address, which does not happen to a bound one.
    pub fn steering(&self) -> io::Result<Steering> {
        Ok(Steering {
            tcp: self.tcp.local_addr()?,
            udp: self.udp.local_addr()?,
            dns_udp: self.dns_udp.local_addr()?,
            dns_tcp: self.dns_tcp.local_addr()?,
        })
    }
}

pub(super) fn bind(
    own: IpAddr,
    kind: Type,
    prepare: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM {
        Protocol::TCP
    } else {
        Protocol::UDP
    };
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in (FIRST_PORT - PORTS_TRIED..FIRST_PORT).rev() {
        let address = SocketAddr::new(own, port);
        let socket = Socket::new(
            Domain::for_address(address),
            kind.nonblocking(),
            Some(protocol),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if kind == Type::STREAM {
            // A restart must not wait for TIME_WAIT of earlier connections.
            socket.set_reuse_address(true)?;
        }
        prepare(&socket)?;
        match socket.bind(&address.into()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                last = error;
                continue;
            }
            Err(error) => return Err(error),
        }
        if kind == Type::STREAM {
            match socket.listen(BACKLOG) {
                Ok(()) => {}
                // Another listener with SO_REUSEADDR took the port between bind and listen.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    last = error;
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        return Ok(socket);
    }
    Err(last)
}

fn transparent(socket: &Socket) -> io::Result<()> {
    // The kernel grants up to net.core.rmem_max; root may exceed it.
    let _ = socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER);
    if socket.domain()? == Domain::IPV4 {
        socket.set_ip_transparent_v4(true)?;
        nix::sys::socket::setsockopt(socket, sockopt::Ipv4OrigDstAddr, &true)?;
    } else {
        socket.set_ip_transparent_v6(true)?;
        nix::sys::socket::setsockopt(socket, sockopt::Ipv6OrigDstAddr, &true)?;
    }
    Ok(())
}

/// Opens a socket that answers `client` from the address it had sent to. It is connected, so the
/// kernel delivers the client's further datagrams to it and not to the tproxy listener.
///
/// # Errors
/// No file descriptor is left, or transparent sockets are not allowed.
pub fn reply_socket(original: OrigDst, client: ClientAddr) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(*original);
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if domain == Domain::IPV4 {
        socket.set_ip_transparent_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_ip_transparent_v6(true)?;
    }
    // Many clients may send to one destination: each pair has a socket of its own.
    socket.set_reuse_address(true)?;
    socket.bind(&original.0.into())?;
    socket.connect(&client.0.into())?;
    UdpSocket::from_std(socket.into())
}

/// Whether a socket failed for lack of descriptors or memory, which passes.
pub fn is_exhaustion(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(
        error.raw_os_error(),
        Some(EMFILE | ENFILE | ENOBUFS | ENOMEM)
    )
}

/// Returns the destination that a redirected connection was made to.
///
/// # Errors
/// The connection was not redirected, or conntrack lost it: the flow must be refused.
pub fn original_destination(stream: &tokio::net::TcpStream) -> io::Result<OrigDst> {
    let socket = SockRef::from(stream);
    // Asks in the socket's own family: in the other one the kernel answers with wrong data.
    let address = if stream.local_addr()?.is_ipv4() {
        socket.original_dst_v4()?
    } else {
        socket.original_dst_v6()?
    };
    address
        .as_socket()
        .map(OrigDst)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}
