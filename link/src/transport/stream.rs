//! The byte stream that HTTP/2 runs on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use bytes::Bytes;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_vsock::VsockStream;

use crate::config::Tuning;
use crate::sockets::readiness::{PollSocket, Readiness};
use crate::transport::cork::{Cork, CorkBuffer};
use crate::transport::socket::LinkSocket;

/// A connected socket between guest and host.
#[derive(Debug)]
pub struct Transport {
    socket: LinkSocket,
    /// Whether one write takes several buffers.
    is_vectored: bool,
    max_write: usize,
    /// Bytes that were read and given back; the next read returns them first.
    ahead: Bytes,
    kept: CorkBuffer,
}

/// The peer of a [`Transport`], as the kernel names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// A virtual machine.
    Vsock {
        /// Context identifier.
        cid: u32,
    },
    /// A process of this machine, as it was when it connected. On a hybrid socket this is the
    /// virtual machine monitor.
    Unix {
        /// Process, when the kernel names it.
        pid: Option<i32>,
        /// Effective user of the process.
        uid: u32,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid } => write!(f, "cid {cid}"),
            Self::Unix {
                pid: Some(pid),
                uid,
            } => write!(f, "pid {pid} (uid {uid})"),
            Self::Unix { pid: None, uid } => write!(f, "uid {uid}"),
        }
    }
}

impl Transport {
    /// A connected Unix socket.
    ///
    /// # Errors
    /// When the runtime can't watch one more descriptor.
    pub fn unix(socket: UnixStream, tuning: &Tuning) -> io::Result<Self> {
        size_buffers(&socket, tuning.socket_buffer);
        Self::new(socket.into_std()?.into(), true, tuning)
    }

    /// A connected vsock socket.
    ///
    /// # Errors
    /// As [`Transport::unix`].
    pub fn vsock(socket: VsockStream, tuning: &Tuning) -> io::Result<Self> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        Self::new(socket, false, tuning)
    }

    fn new(socket: OwnedFd, is_vectored: bool, tuning: &Tuning) -> io::Result<Self> {
        let max_write = tuning.max_write.unwrap_or(usize::MAX);
        Ok(Self {
            socket: LinkSocket::new(socket)?,
            // A limit of the write size would apply to the whole vector: simpler without vectors.
            is_vectored: is_vectored && max_write == usize::MAX,
            max_write,
            ahead: Bytes::new(),
            kept: CorkBuffer::default(),
        })
    }

    /// The cork, for the driver of HTTP/2.
    pub(crate) fn cork(&self) -> Cork {
        self.kept.cork()
    }

    /// Takes the socket out. Bytes that were given back are lost.
    pub(crate) fn into_socket(self) -> OwnedFd {
        self.socket.into_inner()
    }

    /// Gives back bytes that were read, for the next read.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.ahead.is_empty());
        self.ahead = bytes;
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks for socket buffers of `bytes`. The system's limit can be exceeded with privilege only; a
/// smaller buffer costs speed and is no error.
fn size_buffers(socket: &UnixStream, bytes: usize) {
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &bytes);
    }
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &bytes);
    }
}

/// Reads into the unfilled part of `buf`; returns the number of bytes.
#[allow(unsafe_code)]
fn receive(socket: BorrowedFd<'_>, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: only bytes that `recv` has received are written to it.
    let unfilled = unsafe { buf.unfilled_mut() };
    let ((received, _), _) = recv(socket, unfilled, RecvFlags::empty())?;
    let count = received.len();
    // SAFETY: the first `count` bytes were received.
    unsafe { buf.assume_init(count) };
    buf.advance(count);
    Ok(count)
}

/// Sends at most `most` of the bytes; returns how many.
fn poll_send(
    socket: &mut LinkSocket,
    cx: &mut Context<'_>,
    bytes: &[u8],
    most: usize,
) -> Poll<io::Result<usize>> {
    let bytes = bytes.get(..most).unwrap_or(bytes);
    socket.poll_with(cx, Readiness::Write, |socket| {
        Ok(send(socket, bytes, SendFlags::NOSIGNAL)?)
    })
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let count = buf.remaining().min(self.ahead.len());
            buf.put_slice(&self.ahead.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let room = buf.remaining();
        let socket = &mut self.socket;
        ready!(socket.poll_read_with(cx, room, |socket| receive(socket, buf)))?;
        Poll::Ready(Ok(()))
    }
}

impl Transport {
    /// Writes kept bytes; ready when none is left.
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.rest().is_empty() {
            let sent = poll_send(&mut self.socket, cx, self.kept.rest(), self.max_write);
            self.kept.advance(ready!(sent)?);
        }
        Poll::Ready(Ok(()))
    }

    /// Keeps a small write; a larger one first has the kept bytes written. `Some`: it was kept.
    fn poll_keep(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<Option<usize>>> {
        let count = bufs.iter().map(|buf| buf.len()).sum();
        let takes = self.kept.takes(count);
        if !takes || self.kept.is_full() {
            ready!(self.poll_kept(cx))?;
        }
        if !takes {
            return Poll::Ready(Ok(None));
        }
        for buf in bufs {
            self.kept.push(buf);
        }
        Poll::Ready(Ok(Some(count)))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(count) = ready!(self.poll_keep(cx, &[io::IoSlice::new(buf)]))? {
            return Poll::Ready(Ok(count));
        }
        let most = self.max_write;
        poll_send(&mut self.socket, cx, buf, most)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.is_vectored {
            let first = bufs.iter().find(|buf| !buf.is_empty());
            return self.poll_write(cx, first.map_or(&[], |buf| buf));
        }
        if let Some(count) = ready!(self.poll_keep(cx, bufs))? {
            return Poll::Ready(Ok(count));
        }
        self.socket.poll_with(cx, Readiness::Write, |socket| {
            let mut nothing = SendAncillaryBuffer::default();
            Ok(sendmsg(socket, bufs, &mut nothing, SendFlags::NOSIGNAL)?)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.is_vectored
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Kept bytes are written at the end of h2's poll: see `Cork`.
        if self.kept.is_corked() {
            return Poll::Ready(Ok(()));
        }
        self.poll_kept(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_kept(cx))?;
        Poll::Ready(Ok(shutdown(self.as_fd(), Shutdown::Write)?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;

    use futures::FutureExt;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Who gives frames to a transport as h2 does.
    struct Framer {
        transport: Transport,
        frames: VecDeque<Vec<u8>>,
    }

    impl Framer {
        fn new() -> (Self, UnixStream) {
            let (near, far) = UnixStream::pair().unwrap();
            let tuning = Tuning {
                socket_buffer: 4096,
                ..Tuning::default()
            };
            let transport = Transport::unix(near, &tuning).unwrap();
            let frames = VecDeque::new();
            (Self { transport, frames }, far)
        }

        /// Never ready, as a connection that lives.
        fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let mut transport = Pin::new(&mut self.transport);
            while let Some(frame) = self.frames.front_mut() {
                let slices = [io::IoSlice::new(frame)];
                let count = ready!(transport.as_mut().poll_write_vectored(cx, &slices))?;
                frame.drain(..count);
                if frame.is_empty() {
                    self.frames.pop_front();
                    ready!(transport.as_mut().poll_flush(cx))?;
                }
            }
            ready!(transport.poll_flush(cx))?;
            Poll::Pending
        }

        /// Has turns until all is written.
        async fn written(&mut self) {
            let cork = self.transport.cork();
            poll_fn(|cx| {
                let polled = cork.turn(cx, |cx| self.poll(cx));
                let is_done = self.frames.is_empty() && self.transport.kept.rest().is_empty();
                match polled {
                    Poll::Ready(failed) => Poll::Ready(failed),
                    Poll::Pending if is_done => Poll::Ready(Ok(())),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
            .unwrap();
        }
    }

    #[tokio::test]
    async fn small_frames_are_kept_to_the_end_of_the_turn() {
        let (mut framer, far) = Framer::new();
        framer.frames.extend([vec![1; 300], vec![2; 1000]]);
        let cork = framer.transport.cork();
        let mut buffer = [0; 4096];
        let mut is_first = true;
        let _: Option<io::Result<()>> = poll_fn(|cx| {
            cork.turn(cx, |cx| {
                let polled = framer.poll(cx);
                if std::mem::take(&mut is_first) {
                    let early = recv(&far, &mut buffer, RecvFlags::DONTWAIT);
                    assert_eq!(early.unwrap_err(), rustix::io::Errno::AGAIN);
                }
                polled
            })
        })
        .now_or_never();
        let (count, _) = recv(&far, &mut buffer, RecvFlags::DONTWAIT).unwrap();
        assert_eq!(count, 1300);
    }

    #[tokio::test]
    async fn frames_of_all_sizes_arrive_in_order_at_a_slow_reader() {
        let (mut framer, mut far) = Framer::new();
        let sizes = [10, 9000, 300, 8192, 8193, 1, 70_000, 5].repeat(20);
        let mut expected = Vec::new();
        for (size, byte) in sizes.into_iter().zip((0..251).cycle()) {
            expected.extend(vec![byte; size]);
            framer.frames.push_back(vec![byte; size]);
        }
        let mut got = Vec::new();
        tokio::join!(framer.written(), async {
            while got.len() < expected.len() {
                let mut buffer = [0; 1500];
                let count = far.read(&mut buffer).await.unwrap();
                got.extend_from_slice(&buffer[..count]);
            }
        });
        assert!(got == expected);
    }

    #[tokio::test]
    async fn what_is_kept_comes_before_the_end() {
        let (mut framer, mut far) = Framer::new();
        framer.transport.kept.push(b"last words");
        poll_fn(|cx| Pin::new(&mut framer.transport).poll_shutdown(cx))
            .await
            .unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"last words");
    }
}
