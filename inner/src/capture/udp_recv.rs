//! Receives captured datagrams with their original destinations.

use std::io;
use std::io::IoSliceMut;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use odyn_proto::{ClientAddr, OrigDst};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Largest UDP payload over IPv4 or IPv6 without jumbograms, in bytes.
pub const MAX_DATAGRAM: usize = 65_535;

/// The client and the original destination of a captured datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UdpFlowKey {
    /// The app's socket.
    pub client: ClientAddr,
    /// The destination that the app addressed.
    pub original: OrigDst,
}

/// Waits for the next datagram; returns its length and its route.
///
/// # Errors
/// The socket failed, or the kernel gave no original destination. The latter
/// ([`io::ErrorKind::InvalidData`]) concerns this datagram only.
pub async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, UdpFlowKey)> {
    socket
        .async_io(Interest::READABLE, || try_receive(socket, buffer))
        .await
}

/// Receives without waiting: [`io::ErrorKind::WouldBlock`] when there is no datagram.
///
/// # Errors
/// See [`receive`].
pub fn try_receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, UdpFlowKey)> {
    let mut control = nix::cmsg_space!(nix::libc::sockaddr_in6);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let missing = || io::Error::from(io::ErrorKind::InvalidData);
    let client = message
        .address
        .as_ref()
        .and_then(socket_address)
        .ok_or_else(missing)?;
    let original = message
        .cmsgs()?
        .find_map(|control| match control {
            ControlMessageOwned::Ipv4OrigDstAddr(a) => Some(SocketAddr::V4(SocketAddrV4::new(
                u32::from_be(a.sin_addr.s_addr).into(),
                u16::from_be(a.sin_port),
            ))),
            ControlMessageOwned::Ipv6OrigDstAddr(a) => Some(SocketAddr::V6(SocketAddrV6::new(
                a.sin6_addr.s6_addr.into(),
                u16::from_be(a.sin6_port),
                0,
                a.sin6_scope_id,
            ))),
            _ => None,
        })
        .ok_or_else(missing)?;
    let key = UdpFlowKey {
        client: ClientAddr(client),
        original: OrigDst(original),
    };
    Ok((message.bytes, key))
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    storage
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::V6((*v6).into()))
}
