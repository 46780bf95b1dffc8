//! Moves bytes from one socket to another without reading them.
//!
//! A small read goes through a buffer. When a read fills the buffer, the pump splices (splice(2))
//! through a pipe: between a TCP and a Unix socket the kernel then passes pages on and copies
//! nothing. Sockets that can't be spliced (vsock of old kernels) are read and written.

use std::io;
use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::{pipe2, read, write};
use tokio::io::ReadBuf;

use crate::flow::local_stream::LocalStream;
use crate::sockets::readiness::{PollSocket, Readiness};

/// Size of a pipe, which one poll of a flow moves at most. A larger pipe gives more throughput, and
/// makes the next flow wait longer.
const PIPE_BYTES: usize = 256 * 1024;

/// Size of the buffer that replaces a pipe when no pipe can be made.
const BUFFER_BYTES: usize = 64 * 1024;

/// Size of the first buffer, before a pipe is made.
const FIRST_BUFFER_BYTES: usize = 16 * 1024;

/// The result of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PumpStep {
    /// Bytes taken from the source, and bytes given to the sink.
    Moved { taken: usize, given: usize },
    /// The source has ended, and the sink has everything.
    End,
}

/// Which socket failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PumpError {
    Source,
    Sink,
}

/// Moves bytes in one direction.
#[derive(Debug)]
pub(super) struct Pump {
    store: PumpStore,
    /// Bytes that were taken and not given yet.
    held: usize,
}

#[derive(Debug)]
pub(super) enum PumpStore {
    Pipe { entry: OwnedFd, exit: OwnedFd },
    PumpBuffer(PumpBuffer),
}

#[derive(Debug)]
pub(super) struct PumpBuffer {
    bytes: Box<[u8]>,
    start: usize,
    /// A read has filled the buffer.
    was_full: bool,
    /// Makes the larger store that replaces a full buffer, if one is wanted.
    larger: Option<fn() -> PumpStore>,
}

/// Where a pump takes bytes from.
pub(super) trait PumpSource {
    /// Takes at most `limit` bytes into a store that holds none. 0 is the end.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        store: &mut PumpStore,
        limit: usize,
    ) -> Poll<io::Result<usize>>;
}

/// Where a pump gives bytes to.
pub(super) trait PumpSink {
    /// Gives some of the store's `held` bytes.
    fn poll_give(
        &mut self,
        cx: &mut Context<'_>,
        store: &mut PumpStore,
        held: usize,
    ) -> Poll<io::Result<usize>>;
}

impl<S: PollSocket> PumpSource for S {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        store: &mut PumpStore,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        store.poll_take(cx, self, limit)
    }
}

impl<S: PollSocket> PumpSink for S {
    fn poll_give(
        &mut self,
        cx: &mut Context<'_>,
        store: &mut PumpStore,
        held: usize,
    ) -> Poll<io::Result<usize>> {
        self.poll_with(cx, Readiness::Write, |socket| store.give(socket, held))
    }
}

/// A local side without a socket of its own: a buffer copies its bytes.
pub(super) struct Copied<'a, L>(pub(super) &'a mut L);

impl<L: LocalStream> PumpSource for Copied<'_, L> {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        store: &mut PumpStore,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        store.outgrow();
        let PumpStore::PumpBuffer(buffer) = store else {
            return Poll::Ready(Err(Errno::EINVAL.into()));
        };
        let room = buffer.room(limit);
        let mut target = ReadBuf::new(room);
        let read = ready!(self.0.poll_read(cx, &mut target));
        let taken = read.map(|()| target.filled().len());
        buffer.note(&taken);
        Poll::Ready(taken)
    }
}

impl<L: LocalStream> PumpSink for Copied<'_, L> {
    fn poll_give(
        &mut self,
        cx: &mut Context<'_>,
        store: &mut PumpStore,
        held: usize,
    ) -> Poll<io::Result<usize>> {
        let PumpStore::PumpBuffer(buffer) = store else {
            return Poll::Ready(Err(Errno::EINVAL.into()));
        };
        let given = ready!(self.0.poll_write(cx, &[IoSlice::new(buffer.filled(held))]))?;
        buffer.start += given;
        Poll::Ready(Ok(given))
    }
}

impl Pump {
    /// Makes a pump; `can_splice` means that both ends are sockets.
    pub(super) fn new(can_splice: bool) -> Self {
        let larger = if can_splice {
            PumpStore::pipe
        } else {
            PumpStore::buffer
        };
        Self {
            store: PumpStore::PumpBuffer(PumpBuffer::new(FIRST_BUFFER_BYTES, Some(larger))),
            held: 0,
        }
    }

    /// Bytes that were taken and not given yet.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Moves one step: takes at most `limit` bytes when it holds none, and gives some. `limit` is
    /// not 0.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl PumpSource,
        sink: &mut impl PumpSink,
        limit: usize,
    ) -> Poll<Result<PumpStep, PumpError>> {
        let mut taken = 0;
        if self.held == 0 {
            taken = ready!(source.poll_take(cx, &mut self.store, limit))
                .map_err(|_| PumpError::Source)?;
            if taken == 0 {
                return Poll::Ready(Ok(PumpStep::End));
            }
            self.held = taken;
        }
        match self.poll_give(cx, sink) {
            Poll::Ready(given) => Poll::Ready(Ok(PumpStep::Moved {
                taken,
                given: given?,
            })),
            // The caller counts what was taken.
            Poll::Pending if taken > 0 => Poll::Ready(Ok(PumpStep::Moved { taken, given: 0 })),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Gives some of the held bytes.
    pub(super) fn poll_give(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut impl PumpSink,
    ) -> Poll<Result<usize, PumpError>> {
        let given =
            ready!(sink.poll_give(cx, &mut self.store, self.held)).map_err(|_| PumpError::Sink)?;
        self.held -= given;
        Poll::Ready(Ok(given))
    }
}

impl PumpStore {
    /// Makes a pipe, or a buffer where the process may have no more pipes.
    fn pipe() -> Self {
        match pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK) {
            Ok((exit, entry)) => {
                // Over the user's limit the pipe keeps its size: that is slower, and no error.
                let _ = fcntl(&entry, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES as i32));
                Self::Pipe { entry, exit }
            }
            Err(_) => Self::buffer(),
        }
    }

    /// Makes the buffer that replaces a pipe.
    fn buffer() -> Self {
        Self::PumpBuffer(PumpBuffer::new(BUFFER_BYTES, None))
    }

    /// Replaces a buffer that was full. Call this while the pump holds nothing.
    fn outgrow(&mut self) {
        if let Self::PumpBuffer(buffer) = self
            && buffer.was_full
            && let Some(larger) = buffer.larger
        {
            *self = larger();
        }
    }

    /// Takes bytes. Call this while the store holds none.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl PollSocket,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        self.outgrow();
        if let Self::Pipe { entry, .. } = self {
            let taken = ready!(source.poll_with(cx, Readiness::Read, |socket| {
                Ok(splice(
                    socket,
                    None,
                    &*entry,
                    None,
                    limit.min(PIPE_BYTES),
                    flags(),
                )?)
            }));
            match taken {
                Err(error) if is(&error, Errno::EINVAL) => *self = Self::buffer(),
                done => return Poll::Ready(done),
            }
        }
        match self {
            Self::PumpBuffer(buffer) => buffer.poll_take(cx, source, limit),
            // The step above has replaced the pipe.
            Self::Pipe { .. } => Poll::Ready(Err(Errno::EINVAL.into())),
        }
    }

    fn give(&mut self, sink: BorrowedFd<'_>, held: usize) -> io::Result<usize> {
        let result = match self {
            Self::Pipe { exit, .. } => splice(&*exit, None, sink, None, held, flags()),
            Self::PumpBuffer(buffer) => return buffer.give(sink, held),
        };
        match result {
            Err(Errno::EINVAL) => {
                self.pour(held)?;
                self.give(sink, held)
            }
            // The kernel returns 0 for a sink whose state it does not know.
            Ok(0) => Err(io::ErrorKind::BrokenPipe.into()),
            done => Ok(done?),
        }
    }

    /// Moves the pipe's bytes into a buffer, for a sink that can't be spliced to.
    fn pour(&mut self, held: usize) -> io::Result<()> {
        let mut buffer = PumpBuffer::new(BUFFER_BYTES.max(held), None);
        if let Self::Pipe { exit, .. } = self {
            let mut filled = 0;
            while filled < held {
                let rest = buffer.bytes.get_mut(filled..held).unwrap_or_default();
                filled += match read(&*exit, rest)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => count,
                };
            }
        }
        *self = Self::PumpBuffer(buffer);
        Ok(())
    }
}

impl PumpBuffer {
    fn new(room: usize, larger: Option<fn() -> PumpStore>) -> Self {
        Self {
            bytes: vec![0; room].into_boxed_slice(),
            start: 0,
            was_full: false,
            larger,
        }
    }

    /// Takes bytes. Call this while the buffer holds none.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl PollSocket,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        let bytes = self.room(limit);
        let room = bytes.len();
        let taken =
            ready!(source.poll_read_with(cx, room, |socket| Ok(read(socket, &mut *bytes)?)));
        self.note(&taken);
        Poll::Ready(taken)
    }

    /// The room for a read of at most `limit` bytes, in an empty buffer.
    fn room(&mut self, limit: usize) -> &mut [u8] {
        self.start = 0;
        let room = limit.min(self.bytes.len());
        self.bytes.get_mut(..room).unwrap_or_default()
    }

    fn note(&mut self, taken: &io::Result<usize>) {
        self.was_full = matches!(taken, Ok(count) if *count == self.bytes.len());
    }

    /// The `held` bytes of the buffer.
    fn filled(&self, held: usize) -> &[u8] {
        self.bytes
            .get(self.start..self.start + held)
            .unwrap_or_default()
    }

    fn give(&mut self, sink: BorrowedFd<'_>, held: usize) -> io::Result<usize> {
        let count = write(sink, self.filled(held))?;
        self.start += count;
        Ok(count)
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}
