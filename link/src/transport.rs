//! The byte stream under HTTP/2.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};
use tokio_vsock::VsockStream;

use crate::config::Tuning;

/// A connected socket of the link.
#[derive(Debug)]
pub struct Transport {
    socket: Socket,
    max_write: usize,
    /// Bytes that were read and given back: they are read first.
    ahead: Bytes,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Vsock(VsockStream),
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
    pub fn unix(socket: UnixStream, tuning: &Tuning) -> Self {
        size_buffers(&socket, tuning.socket_buffer);
        Self {
            socket: Socket::Unix(socket),
            max_write: tuning.max_write.unwrap_or(usize::MAX),
            ahead: Bytes::new(),
        }
    }

    /// A connected vsock socket.
    pub fn vsock(socket: VsockStream, tuning: &Tuning) -> Self {
        Self {
            socket: Socket::Vsock(socket),
            max_write: tuning.max_write.unwrap_or(usize::MAX),
            ahead: Bytes::new(),
        }
    }

    /// Gives back bytes that were read, to be read again.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.ahead.is_empty());
        self.ahead = bytes;
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix(socket) => socket.as_fd(),
            Socket::Vsock(socket) => socket.as_fd(),
        }
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
        match &mut self.socket {
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            Socket::Vsock(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let buf = buf.get(..self.max_write).unwrap_or(buf);
        match &mut self.socket {
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
            Socket::Vsock(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Socket::Vsock(_) => {
                let first = bufs
                    .iter()
                    .find(|buf| !buf.is_empty())
                    .map_or(&[][..], |buf| &**buf);
                self.poll_write(cx, first)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        // A limit on writes is one on the whole of a vector too: easier without.
        matches!(self.socket, Socket::Unix(_)) && self.max_write == usize::MAX
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Unix(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Vsock(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Vsock(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
