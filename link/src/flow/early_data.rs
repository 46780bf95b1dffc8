//! What a program writes before its flow is open.
//!
//! A program whose connection is captured writes as soon as the kernel has completed it, long before
//! the host half has dialled. Its first bytes travel behind the request, so that the host half has
//! them when the destination answers: a round trip of the link less, and for a short flow a wake-up
//! of each half less. Nothing is decided by them, and a host half that refuses the flow drops them.
//!
//! A request that carried bytes is sent again only when the host half certainly did nothing for it:
//! else the destination could get them twice.

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

/// Most bytes, and all that is read of a flow that may yet be refused: the first message of a
/// client, be it a request or a ClientHello.
const MAX_BYTES: usize = 4 * 1024;

/// The first bytes of a flow that is being opened.
#[derive(Debug)]
pub(crate) struct EarlyData<'a> {
    socket: &'a TcpStream,
    /// Read from the socket, and kept for the next attempt.
    bytes: Bytes,
    in_flight: Arc<InFlight>,
    /// The end, or an error: both are the relay's.
    is_over: bool,
}

/// What went ahead of the answer, for whoever relays the rest.
#[derive(Debug, Default)]
pub(crate) struct SentEarly {
    pub(crate) bytes: usize,
    pub(crate) in_flight: Arc<InFlight>,
}

impl<'a> EarlyData<'a> {
    /// Takes what is there already.
    pub(crate) fn new(socket: &'a TcpStream) -> Self {
        let mut early = Self {
            socket,
            bytes: Bytes::new(),
            in_flight: Arc::default(),
            is_over: false,
        };
        // The runtime has not heard of them yet.
        early.take(receive);
        early
    }

    /// Whether bytes were given to a stream.
    pub(crate) fn is_sent(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Sends what was taken, behind a request.
    pub(crate) fn send(&self, stream: &mut SendStream<Chunk>) {
        if self.is_sent() {
            // A stream that fails is seen by its answer.
            let _ = stream.send_data(self.in_flight.chunk(self.bytes.clone()), false);
        }
    }

    /// Takes and sends the first bytes when they come. What is behind them waits for the answer.
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

/// Asks the kernel, not the runtime.
fn receive(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
}
