//! The byte stream under HTTP/2.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};
use tokio_vsock::VsockStream;

use crate::{
    config::Tuning,
    socket::{Quiet, Side, Socket},
};

/// A connected socket of the link.
#[derive(Debug)]
pub struct Transport {
    socket: Quiet,
    /// Takes several buffers at once.
    is_vectored: bool,
    max_write: usize,
    /// Bytes that were read and given back: they are read first.
    ahead: Bytes,
}

/// Who is at the other end of a [`Transport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// A machine, by its context identifier.
    Vsock {
        /// Context identifier.
        cid: u32,
    },
    /// A process of this machine, as it was when it connected. Behind a hybrid socket it is the
    /// virtual machine monitor.
    Unix {
        /// Process, when the kernel tells.
        pid: Option<i32>,
        /// Its effective user.
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
            socket: Quiet::new(socket)?,
            // A limit on writes is one on the whole of a vector too: easier without.
            is_vectored: is_vectored && max_write == usize::MAX,
            max_write,
            ahead: Bytes::new(),
        })
    }

    /// The socket itself. What was given back is lost.
    pub(crate) fn into_socket(self) -> OwnedFd {
        self.socket.into_inner()
    }

    /// Gives back bytes that were read, to be read again.
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

/// Asks for buffers of `bytes`. Over the system's limit only with privilege; less is less speed,
/// no error.
fn size_buffers(socket: &UnixStream, bytes: usize) {
    if setsockopt(socket, sockopt::SndBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::SndBuf, &bytes);
    }
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &bytes);
    }
}

/// Reads into the part of `buf` that is not filled, and says how many bytes.
#[allow(unsafe_code)]
fn receive(socket: BorrowedFd<'_>, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: nothing but what `recv` has received is written to it.
    let unfilled = unsafe { buf.unfilled_mut() };
    let ((received, _), _) = recv(socket, unfilled, RecvFlags::empty())?;
    let count = received.len();
    // SAFETY: the first `count` bytes were received.
    unsafe { buf.assume_init(count) };
    buf.advance(count);
    Ok(count)
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

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let buf = buf.get(..self.max_write).unwrap_or(buf);
        self.socket.poll_with(cx, Side::Write, |socket| {
            Ok(send(socket, buf, SendFlags::NOSIGNAL)?)
        })
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
        self.socket.poll_with(cx, Side::Write, |socket| {
            let mut nothing = SendAncillaryBuffer::default();
            Ok(sendmsg(socket, bufs, &mut nothing, SendFlags::NOSIGNAL)?)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.is_vectored
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(shutdown(self.as_fd(), Shutdown::Write)?))
    }
}
