//! Readiness of stream sockets, and system calls on them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::net::TcpStream;

/// A socket whose readiness can be polled.
pub(crate) trait PollSocket {
    /// Runs `op`; when it returns `WouldBlock`, waits until the socket is ready for `side`.
    fn poll_with<R>(
        &mut self,
        cx: &mut Context<'_>,
        side: Readiness,
        op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>>;

    /// Reads at most `room` bytes by `read`, which returns how many. 0 is the end.
    ///
    /// A read that gets less than there is room for has emptied the socket (epoll(7)). The runtime
    /// learns that as `WouldBlock`, so that the next poll waits without asking the kernel.
    fn poll_read_with(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let mut last = None;
        let taken = self.poll_with(cx, Readiness::Read, |socket| {
            if let Some(count) = last {
                return Ok(count);
            }
            let count = read(socket)?;
            if count == 0 || count >= room {
                return Ok(count);
            }
            last = Some(count);
            Err(io::ErrorKind::WouldBlock.into())
        });
        match (taken, last) {
            (Poll::Pending, Some(count)) => Poll::Ready(Ok(count)),
            (taken, _) => taken,
        }
    }
}

/// Direction in which a socket is to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Bytes or an end to read.
    Read,
    /// Room to write.
    Write,
}

impl PollSocket for TcpStream {
    fn poll_with<R>(
        &mut self,
        cx: &mut Context<'_>,
        side: Readiness,
        mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            let interest = match side {
                Readiness::Read => ready!(self.poll_read_ready(cx)).map(|()| Interest::READABLE)?,
                Readiness::Write => {
                    ready!(self.poll_write_ready(cx)).map(|()| Interest::WRITABLE)?
                }
            };
            match self.try_io(interest, || op(self.as_fd())) {
                Err(error) if is_to_be_tried_again(&error) => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

pub(crate) fn is_to_be_tried_again(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
