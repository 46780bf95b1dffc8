//! The local side of a flow: the app's socket in the guest, the destination's on the host.

use std::future::Future;
use std::io;
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::sockets::send_queue::{ObservedSocket, unacknowledged};

/// A byte stream that [`relay`](crate::relay) can carry over the link.
///
/// [`TcpStream`] is one. A layer that inspects or translates bytes is another: it holds the stream
/// below it and passes on what it does not change.
///
/// The relay polls everything from one task, and writes before it reads: in each of its polls
/// [`poll_flush`](LocalStream::poll_flush) comes first, as long as the local side takes bytes. An
/// error of a read or a write is a reset of the local side; its text is not used. After a write that
/// failed the relay still reads to the end, for a socket that was reset may hold bytes: a layer that
/// cuts the flow itself fails its reads as well.
pub trait LocalStream: Sized + Send + 'static {
    /// Called once, before the first byte.
    fn prepare(&mut self);

    /// Ready when a read would give bytes, an end or an error. A read may still have to wait.
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads bytes for the peer. Ready without bytes is the end of this direction.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>)
    -> Poll<io::Result<()>>;

    /// Takes the peer's bytes, at least one from the start of `chunks`.
    ///
    /// A stream that keeps them for a while must bound what it keeps.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>>;

    /// Writes without asking the runtime whether the socket has room. The runtime may not know that
    /// yet of a new socket. `None`: the write has to wait, or the stream can't be asked like this.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let _ = bytes;
        Ok(None)
    }

    /// Passes on what [`poll_write`](LocalStream::poll_write) has taken. Ready when the stream
    /// holds nothing that it could pass on now.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the direction to the local side, behind all that was written.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Tells the stream that the app has ended. From here on the relay only reads, and no byte may
    /// be written to the app.
    fn app_has_ended(&mut self);

    /// Makes the close of the local side a reset.
    fn reset_on_close(&mut self);

    /// Makes the close of the local side an orderly one, which the kernel finishes.
    fn close_in_order(&mut self);

    /// Whether the local side was reset, or failed otherwise. The relay asks while it reads
    /// nothing.
    fn has_failed(&self) -> bool;

    /// Whether the local side still has a peer. A socket that was reset has none.
    fn is_connected(&self) -> bool;

    /// Bytes that were written and that the local peer's kernel has not acknowledged. 0 when the
    /// local side has no peer.
    fn unacknowledged(&self) -> usize;

    /// The socket, when its bytes are the flow's bytes. The kernel then moves them on a lane.
    /// `None` for a stream that must see or change them.
    fn socket(&mut self) -> Option<&mut TcpStream> {
        None
    }

    /// Registers the stream in the runtime that calls this.
    ///
    /// # Errors
    /// When the runtime can't watch one more descriptor; the stream is closed then.
    fn rehome(self) -> io::Result<Self>;
}

impl LocalStream for TcpStream {
    fn prepare(&mut self) {
        // Small writes are the sender's choice, already made once.
        let _ = self.set_nodelay(true);
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_read_ready(self, cx)
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(self), cx, buffer)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match chunks {
            [chunk] => AsyncWrite::poll_write(Pin::new(self), cx, chunk),
            chunks => AsyncWrite::poll_write_vectored(Pin::new(self), cx, chunks),
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.as_raw_fd(), bytes, flags) {
            Ok(written) => Ok(Some(written)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Does nothing: the kernel has every byte that a socket took.
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(self), cx)
    }

    /// Does nothing: the relay writes no more, and a socket writes nothing without it.
    fn app_has_ended(&mut self) {}

    fn reset_on_close(&mut self) {
        let _ = self.set_zero_linger();
    }

    fn close_in_order(&mut self) {
        let linger = nix::libc::linger {
            l_onoff: 0,
            l_linger: 0,
        };
        let _ = setsockopt(self, sockopt::Linger, &linger);
    }

    fn has_failed(&self) -> bool {
        !matches!(self.take_error(), Ok(None))
    }

    fn is_connected(&self) -> bool {
        self.peer_addr().is_ok()
    }

    fn unacknowledged(&self) -> usize {
        // A socket that was reset has no peer any more (ENOTCONN), but keeps its count.
        match self.peer_addr() {
            Ok(_) => unacknowledged(self).unwrap_or(0),
            Err(_) => 0,
        }
    }

    fn socket(&mut self) -> Option<&mut TcpStream> {
        Some(self)
    }

    fn rehome(self) -> io::Result<Self> {
        self.into_std().and_then(Self::from_std)
    }
}

/// The host's socket: a flush asks for its send queue.
impl LocalStream for ObservedSocket {
    fn prepare(&mut self) {
        self.get_mut().prepare();
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        LocalStream::poll_read_ready(self.get_mut(), cx)
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        LocalStream::poll_read(self.get_mut(), cx, buffer)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        LocalStream::poll_write(self.get_mut(), cx, chunks)
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        LocalStream::try_write(self.get_mut(), bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        LocalStream::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        LocalStream::poll_shutdown(self.get_mut(), cx)
    }

    fn app_has_ended(&mut self) {
        self.get_mut().app_has_ended();
    }

    fn reset_on_close(&mut self) {
        self.get_mut().reset_on_close();
    }

    fn close_in_order(&mut self) {
        self.get_mut().close_in_order();
    }

    fn has_failed(&self) -> bool {
        self.get().has_failed()
    }

    fn is_connected(&self) -> bool {
        self.get().is_connected()
    }

    fn unacknowledged(&self) -> usize {
        LocalStream::unacknowledged(self.get())
    }

    fn socket(&mut self) -> Option<&mut TcpStream> {
        Some(self.get_mut())
    }

    fn rehome(self) -> io::Result<Self> {
        Self::rehome(self)
    }
}

/// Reads at most `limit` bytes into `buffer`, and returns how many.
pub(crate) fn poll_read_buf<L: LocalStream>(
    local: &mut L,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    limit: usize,
) -> Poll<io::Result<usize>> {
    let mut source = ReadAdapter(local);
    let mut target = buffer.limit(limit);
    let count = ready!(pin!(source.read_buf(&mut target)).poll(cx))?;
    Poll::Ready(Ok(count))
}

/// Adapts a [`LocalStream`] to tokio's readers.
struct ReadAdapter<'a, L>(&'a mut L);

impl<L: LocalStream> AsyncRead for ReadAdapter<'_, L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, buffer)
    }
}
