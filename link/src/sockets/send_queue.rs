//! How much of what was written to a TCP socket its peer has not acknowledged.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

use crate::sockets::observed::{Lent, Observed};

/// Bytes in the send queue that are not acknowledged (SIOCOUTQ, tcp(7)). A FIN counts as one.
///
/// # Errors
/// When the socket can't tell.
#[allow(unsafe_code)]
pub fn unacknowledged(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: nix::libc::c_int = 0;
    let socket = socket.as_fd();
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and TIOCOUTQ (the same
    // number as SIOCOUTQ) writes one int, for which `bytes` has room.
    let result =
        unsafe { nix::libc::ioctl(socket.as_raw_fd(), nix::libc::TIOCOUTQ, &raw mut bytes) };
    nix::errno::Errno::result(result)?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// A look at the send queue of a socket that someone else owns, for as long as it is open.
pub(crate) type SendQueue = Lent<RawFd>;

impl SendQueue {
    /// As [`unacknowledged`]; `None` when the socket is closed.
    #[allow(unsafe_code)]
    pub(crate) fn unacknowledged(&self) -> Option<usize> {
        self.with(|raw| {
            // SAFETY: the descriptor is lent by the socket's owner, so it is open in here.
            let socket = unsafe { BorrowedFd::borrow_raw(raw) };
            unacknowledged(socket).ok()
        })?
    }

    /// Makes the close of the socket a reset, if it is still open.
    #[allow(unsafe_code)]
    pub(crate) fn reset_on_close(&self) {
        self.with(|raw| {
            // SAFETY: as above.
            let socket = unsafe { BorrowedFd::borrow_raw(raw) };
            let linger = nix::libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            // What fails is no socket any more.
            let _ = setsockopt(&socket, sockopt::Linger, &linger);
        });
    }
}

/// A socket, and the [`SendQueue`] that is lent of it.
#[derive(Debug)]
pub(crate) struct ObservedSocket(Observed<TcpStream, RawFd>);

impl ObservedSocket {
    /// A socket of which nothing is lent yet.
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self(Observed::new(socket))
    }

    /// The same socket, watched by the runtime that we are in.
    ///
    /// # Errors
    /// When it can't watch one more descriptor; the socket is closed then.
    pub(crate) fn rehome(self) -> io::Result<Self> {
        let moved = self
            .0
            .try_map(|socket| socket.into_std().and_then(TcpStream::from_std));
        moved.map(Self)
    }

    /// The send queue of this socket. It is made when first asked for.
    pub(crate) fn send_queue(&mut self) -> Arc<SendQueue> {
        self.0.lend(AsRawFd::as_raw_fd)
    }

    pub(crate) fn get(&self) -> &TcpStream {
        self.0.get()
    }

    /// For reading and writing. The socket must not be replaced: its send queue would be left
    /// behind.
    pub(crate) fn get_mut(&mut self) -> &mut TcpStream {
        self.0.get_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_probe_sees_the_queue_and_then_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (_far, _) = listener.accept().await.unwrap();
        let mut socket = ObservedSocket::new(near.unwrap());
        let send_queue = socket.send_queue();
        assert_eq!(send_queue.unacknowledged(), Some(0));
        // More than a peer that does not read takes.
        let junk = vec![0; 1 << 20];
        while let Ok(Ok(())) = tokio::time::timeout(
            std::time::Duration::from_millis(100),
            socket.get_mut().write_all(&junk),
        )
        .await
        {}
        assert!(send_queue.unacknowledged() > Some(0));
        drop(socket);
        assert_eq!(send_queue.unacknowledged(), None);
    }
}
