//! A connected socket.

use std::io;

use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::inbox::{MAX_RECEIVED, Received};
use crate::segments::Segments;
use crate::{Taken, inbox};

/// A connected UDP socket that sends and receives several datagrams by one system call.
#[derive(Debug)]
pub struct Batched {
    socket: UdpSocket,
    segments: Segments,
}

impl Batched {
    /// Wraps a connected socket.
    pub fn new(socket: UdpSocket) -> Self {
        let segments = Segments::of(&socket);
        Self { socket, segments }
    }

    /// The socket.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends the first of some datagrams, at least one if there is any.
    ///
    /// # Errors
    /// As for a socket that sends one datagram. The error is about the first datagram.
    pub fn try_send(&self, datagrams: &[impl AsRef<[u8]>]) -> io::Result<Taken> {
        self.segments.try_send(&self.socket, datagrams, None)
    }

    /// Passes some of the waiting datagrams to `take`, in order.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if none waits, or the error of the socket.
    pub fn try_receive<R>(&self, take: impl FnOnce(Received<'_>) -> R) -> io::Result<R> {
        inbox::borrow(|inbox| {
            let received = self.socket.try_io(Interest::READABLE, || {
                if inbox.receive(&self.socket)? < MAX_RECEIVED {
                    // The kernel had no more, so the runtime need not ask it again.
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
