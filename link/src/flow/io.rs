//! A flow as a reader and writer, for code that has no TCP socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::flow::stream::{Cut, FlowSide, Stream};

/// Largest number of bytes that one write takes.
const MAX_BYTES: usize = 64 * 1024;

/// A flow as a stream of bytes. Dropping it resets the flow, unless both directions have ended.
#[derive(Debug)]
pub struct LinkIo {
    stream: Stream,
    /// Counts the flow as open in the drain until this is dropped.
    _side: FlowSide,
    /// Bytes that came and are not read yet.
    came: Bytes,
    has_ended: bool,
    is_shut: bool,
}

impl LinkIo {
    pub(crate) fn new(mut stream: Stream) -> Self {
        Self {
            _side: stream.take_side(),
            stream,
            came: Bytes::new(),
            has_ended: false,
            is_shut: false,
        }
    }
}

fn error(cut: Cut) -> io::Error {
    let kind = match cut {
        Cut::Socket | Cut::Peer => io::ErrorKind::ConnectionReset,
        Cut::Gone | Cut::Link => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, format!("the flow was cut: {cut:?}"))
}

impl AsyncRead for LinkIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.came.is_empty() && !self.has_ended {
            match ready!(self.stream.poll_data(cx)).map_err(error)? {
                Some(bytes) => self.came = bytes,
                None => self.has_ended = true,
            }
        }
        let count = self.came.len().min(buffer.remaining());
        buffer.put_slice(&self.came.split_to(count));
        // Only what was read: a slow reader stalls its own flow.
        self.stream.release(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LinkIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.is_shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let wanted = bytes.len().min(MAX_BYTES);
        let room = ready!(self.stream.poll_room(cx, wanted)).map_err(error)?;
        let count = room.min(wanted);
        let bytes = Bytes::copy_from_slice(&bytes[..count]);
        self.stream.send(bytes, false).map_err(error)?;
        Poll::Ready(Ok(count))
    }

    /// Does nothing: h2 sends what it has without a flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            self.is_shut = true;
            self.stream.send(Bytes::new(), true).map_err(error)?;
        }
        Poll::Ready(Ok(()))
    }
}
