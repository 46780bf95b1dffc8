//! Moves bytes from one socket to another without looking at them.
//!
//! By splice(2) through a pipe: between a TCP and a Unix socket the kernel then hands pages on and
//! copies nothing. A socket that can't do it (vsock of old kernels) is read and written.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    task::{Context, Poll, ready},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::{pipe2, read, write},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpStream,
};

/// Room of a pipe: what one turn of a flow moves at most. More is more throughput, and a longer
/// wait for whoever comes next.
const PIPE: usize = 256 * 1024;

/// Room of the buffer in place of a pipe.
const BUFFER: usize = 64 * 1024;

/// A socket that can be waited for.
pub(crate) trait Socket {
    /// Does `op`, which says `WouldBlock` to wait until the socket is ready for `side`.
    fn poll_with<R>(
        &self,
        cx: &mut Context<'_>,
        side: Side,
        op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>>;
}

/// What a socket is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    /// Something to read.
    Read,
    /// Room to write.
    Write,
}

impl Socket for TcpStream {
    fn poll_with<R>(
        &self,
        cx: &mut Context<'_>,
        side: Side,
        mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            let interest = match side {
                Side::Read => ready!(self.poll_read_ready(cx)).map(|()| Interest::READABLE)?,
                Side::Write => ready!(self.poll_write_ready(cx)).map(|()| Interest::WRITABLE)?,
            };
            match self.try_io(interest, || op(self.as_fd())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

/// Has the runtime that we are in watch a socket.
///
/// # Errors
/// When it can't watch one more descriptor.
#[allow(unsafe_code)]
pub(crate) fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, and nobody can replace or close it before it is dropped
    // together with its registration.
    unsafe { AsyncFd::register(socket) }.map_err(Into::into)
}

impl Socket for AsyncFd<OwnedFd> {
    fn poll_with<R>(
        &self,
        cx: &mut Context<'_>,
        side: Side,
        mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            let mut ready = match side {
                Side::Read => ready!(self.poll_read_ready(cx))?,
                Side::Write => ready!(self.poll_write_ready(cx))?,
            };
            if let Ok(done) = ready.try_io(|socket| op(socket.as_fd())) {
                return Poll::Ready(done);
            }
        }
    }
}

/// What one step has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Bytes that were taken from the source and bytes that were given to the sink.
    Moved { taken: usize, given: usize },
    /// The source has ended, and the sink has everything.
    End,
}

/// Which socket failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    Source,
    Sink,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Pump {
    store: Store,
    /// Bytes that were taken and not given.
    held: usize,
}

#[derive(Debug)]
enum Store {
    Pipe { entry: OwnedFd, exit: OwnedFd },
    Buffer { bytes: Box<[u8]>, start: usize },
}

impl Pump {
    /// A pump with a pipe; where the process may have no more pipes, with a buffer.
    pub(crate) fn new() -> Self {
        let store = match pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK) {
            Ok((exit, entry)) => {
                // Over the user's limit it stays as it is: slower, no error.
                let _ = fcntl(&entry, FcntlArg::F_SETPIPE_SZ(PIPE as i32));
                Store::Pipe { entry, exit }
            }
            Err(_) => Store::buffer(),
        };
        Self { store, held: 0 }
    }

    /// Bytes that were taken and not given.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// One step: takes at most `limit` bytes, which is not 0, when it holds none, and gives some.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &impl Socket,
        sink: &impl Socket,
        limit: usize,
    ) -> Poll<Result<Step, Broken>> {
        let mut taken = 0;
        if self.held == 0 {
            let store = &mut self.store;
            taken = ready!(source.poll_with(cx, Side::Read, |socket| store.take(socket, limit)))
                .map_err(|_| Broken::Source)?;
            if taken == 0 {
                return Poll::Ready(Ok(Step::End));
            }
            self.held = taken;
        }
        match self.poll_give(cx, sink) {
            Poll::Ready(given) => Poll::Ready(Ok(Step::Moved {
                taken,
                given: given?,
            })),
            // What was taken is to be counted.
            Poll::Pending if taken > 0 => Poll::Ready(Ok(Step::Moved { taken, given: 0 })),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Gives some of what it holds.
    pub(crate) fn poll_give(
        &mut self,
        cx: &mut Context<'_>,
        sink: &impl Socket,
    ) -> Poll<Result<usize, Broken>> {
        let (store, held) = (&mut self.store, self.held);
        let given = ready!(sink.poll_with(cx, Side::Write, |socket| store.give(socket, held)))
            .map_err(|_| Broken::Sink)?;
        self.held -= given;
        Poll::Ready(Ok(given))
    }
}

impl Store {
    fn buffer() -> Self {
        Self::Buffer {
            bytes: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
        }
    }

    /// Called when it holds nothing.
    fn take(&mut self, source: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
        loop {
            let result = match self {
                Self::Pipe { entry, .. } => {
                    splice(source, None, entry, None, limit.min(PIPE), flags())
                }
                Self::Buffer { bytes, start } => {
                    *start = 0;
                    let room = limit.min(bytes.len());
                    read(source, bytes.get_mut(..room).unwrap_or_default())
                }
            };
            match result {
                Err(Errno::EINTR) => {}
                Err(Errno::EINVAL) if matches!(self, Self::Pipe { .. }) => *self = Self::buffer(),
                done => return Ok(done?),
            }
        }
    }

    fn give(&mut self, sink: BorrowedFd<'_>, held: usize) -> io::Result<usize> {
        loop {
            let result = match self {
                Self::Pipe { exit, .. } => splice(exit, None, sink, None, held, flags()),
                Self::Buffer { bytes, start } => {
                    let rest = bytes.get(*start..*start + held).unwrap_or_default();
                    write(sink, rest).inspect(|count| *start += count)
                }
            };
            match result {
                Err(Errno::EINTR) => {}
                Err(Errno::EINVAL) if matches!(self, Self::Pipe { .. }) => self.pour(held)?,
                // The kernel says 0 for a sink of which it does not know better.
                Ok(0) => return Err(io::ErrorKind::BrokenPipe.into()),
                done => return Ok(done?),
            }
        }
    }

    /// From the pipe into a buffer, for a sink that can't be spliced to.
    fn pour(&mut self, held: usize) -> io::Result<()> {
        let mut bytes = vec![0; BUFFER.max(held)].into_boxed_slice();
        if let Self::Pipe { exit, .. } = self {
            let mut filled = 0;
            while filled < held {
                let rest = bytes.get_mut(filled..held).unwrap_or_default();
                filled += match read(&*exit, rest)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => count,
                };
            }
        }
        *self = Self::Buffer { bytes, start: 0 };
        Ok(())
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}
