//! How much of what was written to a TCP socket its peer has not acknowledged.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

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
#[derive(Debug)]
pub(crate) struct SendQueue(Mutex<Option<RawFd>>);

impl SendQueue {
    /// As [`unacknowledged`]; `None` when the socket is closed.
    #[allow(unsafe_code)]
    pub(crate) fn unacknowledged(&self) -> Option<usize> {
        let descriptor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let raw = (*descriptor)?;
        // SAFETY: `ObservedSocket` forgets the descriptor under the lock, which is held here, before it
        // closes it. So it is open.
        let socket = unsafe { BorrowedFd::borrow_raw(raw) };
        unacknowledged(socket).ok()
    }
}

impl SendQueue {
    /// Makes the close of the socket a reset, if it is still open.
    #[allow(unsafe_code)]
    pub(crate) fn reset_on_close(&self) {
        let descriptor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(raw) = *descriptor else {
            return;
        };
        // SAFETY: as above: `ObservedSocket` forgets the descriptor under the lock before it closes it.
        let socket = unsafe { BorrowedFd::borrow_raw(raw) };
        let linger = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        // What fails is no socket any more.
        let _ = setsockopt(&socket, sockopt::Linger, &linger);
    }
}

/// A socket, and a [`SendQueue`] that forgets it before it is closed.
#[derive(Debug)]
pub(crate) struct ObservedSocket {
    // In this order they are dropped.
    watch: QueueWatch,
    socket: TcpStream,
}

#[derive(Debug, Default)]
struct QueueWatch(Option<Arc<SendQueue>>);

impl ObservedSocket {
    /// A socket that nobody looks at.
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self {
            watch: QueueWatch::default(),
            socket,
        }
    }

    /// The same socket, watched by the runtime that we are in.
    ///
    /// # Errors
    /// When it can't watch one more descriptor; the socket is closed then.
    pub(crate) fn rehome(self) -> io::Result<Self> {
        let Self { watch, socket } = self;
        // Held all the time: a failure closes the descriptor.
        let mut send_queue = watch
            .0
            .as_ref()
            .map(|send_queue| send_queue.0.lock().unwrap_or_else(PoisonError::into_inner));
        let moved = socket.into_std().and_then(TcpStream::from_std);
        if let (Err(_), Some(send_queue)) = (&moved, &mut send_queue) {
            **send_queue = None;
        }
        drop(send_queue);
        Ok(Self {
            watch,
            socket: moved?,
        })
    }

    /// The send_queue of this socket. It is made when first asked for.
    pub(crate) fn send_queue(&mut self) -> Arc<SendQueue> {
        let raw = self.socket.as_raw_fd();
        let send_queue = self
            .watch
            .0
            .get_or_insert_with(|| Arc::new(SendQueue(Mutex::new(Some(raw)))));
        Arc::clone(send_queue)
    }

    pub(crate) fn get(&self) -> &TcpStream {
        &self.socket
    }

    /// For reading and writing. Whoever replaced the socket would leave its send_queue behind: nobody
    /// does.
    pub(crate) fn get_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }
}

impl Drop for QueueWatch {
    fn drop(&mut self) {
        if let Some(send_queue) = &self.0 {
            *send_queue.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
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
