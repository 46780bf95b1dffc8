//! A connected socket.

use std::io;

use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::inbox::{MAX_RECEIVED, Received};
use crate::segments::Segments;
use crate::{Taken, inbox};

/// A connected UDP socket that takes and gives several datagrams by one system call.
#[derive(Debug)]
pub struct Batched {
    socket: UdpSocket,
    segments: Segments,
}

impl Batched {
    /// Takes a connected socket.
    pub fn new(socket: UdpSocket) -> Self {
        let segments = Segments::of(&socket);
        Self { socket, segments }
    }

    /// The socket itself.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends the first of some datagrams, one at least if there is any.
    ///
    /// # Errors
    /// As of a socket that sends one; the error is about the first datagram.
    pub fn try_send(&self, datagrams: &[impl AsRef<[u8]>]) -> io::Result<Taken> {
        self.segments.try_send(&self.socket, datagrams, None)
    }

    /// Gives some of the datagrams that are there to `take`, in their order.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there are none, or what the socket says.
    pub fn try_receive<R>(&self, take: impl FnOnce(Received<'_>) -> R) -> io::Result<R> {
        inbox::borrow(|inbox| {
            let received = self.socket.try_io(Interest::READABLE, || {
                if inbox.receive(&self.socket)? < MAX_RECEIVED {
                    // The kernel had no more. The runtime does not have to ask it again.
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            match received {
                Err(error) if inbox.is_empty() => Err(error),
                _ => Ok(take(inbox.received())),
            }
        })
    }
}
