//! The bytes that an app writes before its flow is open.
//!
//! A captured app writes as soon as the kernel has completed its connection, long before the host
//! has dialled. The app's first bytes travel behind the request, so that the host has them when the
//! destination answers. That saves a round trip of the link, and for a short flow a wake-up of each
//! half. No decision uses these bytes, and a host that refuses the flow drops them.
//!
//! A request that carried bytes is sent again only when the host certainly did nothing for it.
//! Otherwise the destination could get the bytes twice.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::SendStream;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::http2::chunk::{Chunk, InFlight};

/// Largest number of early bytes, and of bytes read before the host accepts the flow. It fits a
/// client's first message, be it a request or a ClientHello.
const MAX_BYTES: usize = 4 * 1024;

/// The first bytes of a flow that the guest is opening.
#[derive(Debug)]
pub(crate) struct EarlyData<'a> {
    socket: &'a TcpStream,
    /// Bytes that were read from the socket, kept for the next attempt.
    bytes: Bytes,
    in_flight: Arc<InFlight>,
    /// The socket had an end or an error, which the relay handles.
    is_over: bool,
}

/// What was sent before the answer, for the relay of the rest.
#[derive(Debug, Default)]
pub(crate) struct SentEarly {
    pub(crate) bytes: usize,
    pub(crate) in_flight: Arc<InFlight>,
}

impl<'a> EarlyData<'a> {
    /// Takes what the socket holds already.
    pub(crate) fn new(socket: &'a TcpStream) -> Self {
        let mut early = Self {
            socket,
            bytes: Bytes::new(),
            in_flight: Arc::default(),
            is_over: false,
        };
        // The runtime does not know of these bytes yet.
        early.take(receive);
        early
    }

    /// Whether bytes were given to a stream.
    pub(crate) fn is_sent(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Sends the bytes behind a request.
    pub(crate) fn send(&self, stream: &mut SendStream<Chunk>) {
        if self.is_sent() {
            // The answer shows that the stream has failed.
            let _ = stream.send_data(self.in_flight.chunk(self.bytes.clone()), false);
        }
    }

    /// Takes and sends the first bytes when they come. Later bytes wait for the answer.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, stream: &mut SendStream<Chunk>) {
        while !self.is_over && !self.is_sent() {
            match self.socket.poll_read_ready(cx) {
                Poll::Pending => return,
                Poll::Ready(Err(_)) => self.is_over = true,
                Poll::Ready(Ok(())) => {
                    self.take(|socket, buffer| {
                        socket.try_io(Interest::READABLE, || receive(socket, buffer))
                    });
                    self.send(stream);
                }
            }
        }
    }

    fn take(&mut self, read: impl FnOnce(&TcpStream, &mut [u8]) -> io::Result<usize>) {
        let mut buffer = [0; MAX_BYTES];
        match read(self.socket, &mut buffer) {
            Ok(0) => self.is_over = true,
            Ok(count) => self.bytes = Bytes::copy_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.is_over = true,
        }
    }

    pub(crate) fn finish(self) -> SentEarly {
        SentEarly {
            bytes: self.bytes.len(),
            in_flight: self.in_flight,
        }
    }
}

/// Reads by asking the kernel, not the runtime.
fn receive(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
}
