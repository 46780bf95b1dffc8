//! Sends answers to the app's datagrams, for both ways of capture.

use std::future::pending;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use odyn_link::DatagramSocket;
use odyn_udp_batch::{Batched, Received, Taken};

use crate::capture::sockets::reply_socket;
use crate::capture::udp_recv::UdpFlowKey;
use crate::capture::{icmp, tun};

/// Makes the replies of a capture.
pub enum UdpReplies {
    /// Through sockets, with nftables.
    Sockets(icmp::Refusals),
    /// Through packets written to the TUN device.
    Packets(Arc<tun::Shared>),
}

/// Sends one flow's answers, from the address that its datagrams went to.
pub enum UdpReply {
    /// A socket, which also receives the flow's further datagrams.
    Socket(Batched),
    /// The TUN device, which takes packets.
    Packets(Arc<tun::Shared>, UdpFlowKey),
}

impl UdpReplies {
    /// Refuses a datagram of `length` bytes: a connected socket sees ECONNREFUSED.
    pub fn port_unreachable(&self, route: UdpFlowKey, length: usize) {
        match self {
            UdpReplies::Sockets(refusals) => refusals.port_unreachable(route, length),
            UdpReplies::Packets(shared) => shared.port_unreachable(route, length),
        }
    }

    /// Makes the reply of one flow.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn reply(&self, route: UdpFlowKey) -> io::Result<UdpReply> {
        match self {
            UdpReplies::Sockets(_) => {
                let socket = reply_socket(route.original, route.client)?;
                Ok(UdpReply::Socket(Batched::new(socket)))
            }
            UdpReplies::Packets(shared) => Ok(UdpReply::Packets(Arc::clone(shared), route)),
        }
    }
}

impl UdpReply {
    /// Waits for a datagram of the flow that did not come by the listener.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            UdpReply::Socket(socket) => socket.socket().readable().await,
            UdpReply::Packets(..) => pending().await,
        }
    }

    /// Receives such a datagram by a system call: the runtime may not have seen it yet.
    ///
    /// # Errors
    /// There is none, or the client is gone.
    pub fn recv_now(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        match self {
            UdpReply::Socket(socket) => {
                let fd = socket.socket().as_raw_fd();
                recv(fd, buffer, MsgFlags::MSG_DONTWAIT)
            }
            UdpReply::Packets(..) => Err(Errno::EWOULDBLOCK),
        }
    }
}

impl DatagramSocket for UdpReply {
    fn try_receive<R>(&self, take: impl FnOnce(Received<'_>) -> R) -> io::Result<R> {
        match self {
            UdpReply::Socket(socket) => socket.try_receive(take),
            UdpReply::Packets(..) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn try_send(&self, answers: &[Bytes]) -> io::Result<Taken> {
        match self {
            UdpReply::Socket(socket) => socket.try_send(answers),
            UdpReply::Packets(shared, route) => {
                for answer in answers {
                    shared.datagram(*route, answer);
                }
                Ok(answers.iter().map(|answer| &**answer).collect())
            }
        }
    }
}
