//! The socket of a connection, watched with few wake-ups.
//!
//! A Unix socket wakes the thread that watches it for room each time its peer has read, also when
//! that thread has nothing to write: on a link that carries small messages, every second wake-up.
//! So [`LinkSocket`] watches for readability only, and for room only after a write has found none.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sockets::readiness::{PollSocket, Readiness, is_to_be_tried_again};

/// Successful writes after which room is no longer watched. To start and stop watching costs a few
/// system calls, which a flow that fills the socket all the time would pay for each wait.
const WRITE_IDLE_LIMIT: u8 = 64;

/// A Unix or vsock socket of the link.
#[derive(Debug)]
pub(crate) struct LinkSocket {
    socket: AsyncFd<OwnedFd>,
    /// A duplicate that is watched for room, and the number of writes since the last wait for room.
    room: Option<(AsyncFd<OwnedFd>, u8)>,
}

impl LinkSocket {
    /// Registers a socket with the current runtime.
    ///
    /// # Errors
    /// When the runtime can't watch one more descriptor; the socket is closed then.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: watch(socket, Interest::READABLE)?,
            room: None,
        })
    }

    /// The socket, no longer registered with a runtime.
    pub(crate) fn into_inner(self) -> OwnedFd {
        self.socket.into_inner()
    }

    fn poll_write_with<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        while self.room.is_none() {
            match op(self.socket.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let duplicate = self.socket.as_fd().try_clone_to_owned()?;
                    self.room = Some((watch(duplicate, Interest::WRITABLE)?, 0));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
        let Some((room, calm)) = &mut self.room else {
            return Poll::Ready(Err(io::ErrorKind::WouldBlock.into()));
        };
        loop {
            let mut guard = ready!(room.poll_write_ready(cx))?;
            match guard.try_io(|socket| op(socket.as_fd())) {
                Ok(Err(error)) if is_to_be_tried_again(&error) => {}
                Ok(done) => {
                    *calm = calm.saturating_add(1);
                    if *calm >= WRITE_IDLE_LIMIT {
                        self.room = None;
                    }
                    return Poll::Ready(done);
                }
                Err(_would_block) => *calm = 0,
            }
        }
    }
}

impl AsFd for LinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl PollSocket for LinkSocket {
    fn poll_with<R>(
        &mut self,
        cx: &mut Context<'_>,
        side: Readiness,
        mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        if side == Readiness::Write {
            return self.poll_write_with(cx, op);
        }
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(cx))?;
            match guard.try_io(|socket| op(socket.as_fd())) {
                Ok(Err(error)) if is_to_be_tried_again(&error) => {}
                Ok(done) => return Poll::Ready(done),
                Err(_would_block) => {}
            }
        }
    }
}

#[allow(unsafe_code)]
fn watch(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, so it stays open and the same until it is dropped together
    // with its registration.
    unsafe { AsyncFd::register_with_interest(socket, interest) }.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use nix::unistd::{read, write};
    use tokio::net::UnixStream;

    use super::*;

    fn pair() -> (LinkSocket, LinkSocket) {
        let (near, far) = UnixStream::pair().unwrap();
        let quiet =
            |socket: UnixStream| LinkSocket::new(socket.into_std().unwrap().into()).unwrap();
        (quiet(near), quiet(far))
    }

    async fn send(socket: &mut LinkSocket, bytes: &[u8]) -> usize {
        let sent = poll_fn(|cx| socket.poll_with(cx, Readiness::Write, |fd| Ok(write(fd, bytes)?)));
        sent.await.unwrap()
    }

    async fn receive(socket: &mut LinkSocket, bytes: &mut [u8]) -> usize {
        let room = bytes.len();
        poll_fn(|cx| socket.poll_read_with(cx, room, |fd| Ok(read(fd, &mut *bytes)?)))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn messages_of_any_size_arrive_one_after_the_other() {
        let (mut near, mut far) = pair();
        let mut buffer = [0; 8];
        for count in [1, 7, 8, 3] {
            assert_eq!(send(&mut near, &[9; 8][..count]).await, count);
            assert_eq!(receive(&mut far, &mut buffer).await, count);
        }
        drop(near);
        assert_eq!(receive(&mut far, &mut buffer).await, 0);
    }

    #[tokio::test]
    async fn a_full_socket_is_waited_for_and_then_no_longer_watched() {
        let (mut near, mut far) = pair();
        let junk = vec![0; 64 * 1024];
        let read_all = async {
            let (mut total, mut buffer) = (0, vec![0; 64 * 1024]);
            while total < 400 * junk.len() {
                total += receive(&mut far, &mut buffer).await;
                tokio::task::yield_now().await;
            }
        };
        let mut had_to_wait = false;
        let write_all = async {
            let mut left = 400 * junk.len();
            while left > 0 {
                left -= send(&mut near, &junk[..junk.len().min(left)]).await;
                had_to_wait |= near.room.is_some();
            }
        };
        tokio::join!(read_all, write_all);
        assert!(had_to_wait);
        for _ in 0..WRITE_IDLE_LIMIT {
            assert_eq!(send(&mut near, &[1]).await, 1);
        }
        assert!(near.room.is_none());
    }
}
