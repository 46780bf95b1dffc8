//! From the socket to the link.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use odyn_proto::wire::lane::OFFSET_BYTES;
use tokio::io::ReadBuf;
use tokio::time::{Sleep, sleep};

use crate::config::Tuning;
use crate::flow::lane::{Lane, POLL_BUDGET, PumpError, PumpStep};
use crate::flow::local_stream::{LocalStream, poll_read_buf};
use crate::flow::stream::{Cut, Stream};

/// Size of the first read, which has room on the stack. The relay doubles it while reads fill their
/// buffer, up to the configured size.
const FIRST_READ: usize = 8 * 1024;

/// The relay copies reads of up to this size out of their buffer. A few queued bytes then keep no
/// large buffer alive.
const COPY_LIMIT: usize = 2 * 1024;

/// Interval of the checks for a reset while the relay reads nothing. It reads nothing while the
/// flow's window is closed, and after the FIN.
const RESET_CHECK: Duration = Duration::from_secs(1);

pub(super) struct Up {
    ended: bool,
    /// A write to the socket failed: the end of its bytes is no FIN.
    pub(super) socket_is_dead: bool,
    /// The relay reads what the socket holds without a time limit, also after a reset.
    pub(super) patient: bool,
    /// Empty between reads; without memory while the socket has nothing to read.
    buf: BytesMut,
    read_size: usize,
    max_read: usize,
    /// The timer of the next check. The relay keeps it while bytes flow again: a busy flow stalls
    /// all the time, and a new timer costs more than a superfluous check.
    next_check: Option<Pin<Box<Sleep>>>,
}

impl Up {
    pub(super) fn new(tuning: &Tuning) -> Self {
        Self {
            ended: false,
            socket_is_dead: false,
            patient: false,
            buf: BytesMut::new(),
            read_size: FIRST_READ.min(tuning.max_read),
            max_read: tuning.max_read,
            next_check: None,
        }
    }

    /// Whether h2 has the FIN.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Ready when h2 has the FIN.
    pub(super) fn poll<L: LocalStream>(
        &mut self,
        cx: &mut Context<'_>,
        local: &mut L,
        stream: &mut Stream,
        lane: Option<&mut Lane>,
        count: &AtomicU64,
    ) -> Poll<Result<(), Cut>> {
        if self.ended {
            // The socket may still fail on the way down.
            return if self.socket_is_dead {
                Err(Cut::Socket).into()
            } else {
                Ok(()).into()
            };
        }
        if let Some(lane) = lane {
            return self.poll_lane(cx, local, stream, lane, count);
        }
        loop {
            let Poll::Ready(room) = stream.poll_room(cx, self.max_read)? else {
                return self.poll_reset(cx, local);
            };
            let Poll::Ready(bytes) = self.poll_read(cx, local, room)? else {
                self.buf = BytesMut::new();
                return Poll::Pending;
            };
            if bytes.is_empty() {
                if self.socket_is_dead {
                    return Err(Cut::Socket).into();
                }
                stream.send(Bytes::new(), true)?;
                self.ended = true;
                self.buf = BytesMut::new();
                return Ok(()).into();
            }
            count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            stream.send(bytes, false)?;
        }
    }

    /// As [`Up::poll`], for a flow that has moved to a lane.
    fn poll_lane<L: LocalStream>(
        &mut self,
        cx: &mut Context<'_>,
        local: &mut L,
        stream: &mut Stream,
        lane: &mut Lane,
        count: &AtomicU64,
    ) -> Poll<Result<(), Cut>> {
        let mut budget = POLL_BUDGET;
        while budget > 0 {
            match lane.poll_up(cx, local) {
                Poll::Pending if lane.waits_for_room() => return self.poll_reset(cx, local),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(PumpStep::Moved { taken, given })) => {
                    count.fetch_add(taken as u64, Ordering::Relaxed);
                    budget = budget.saturating_sub(given.max(1));
                }
                Poll::Ready(Ok(PumpStep::End)) if self.socket_is_dead => {
                    return Err(Cut::Socket).into();
                }
                Poll::Ready(Ok(PumpStep::End)) => {
                    // The other half must know the offset before it sees the frame, and the two
                    // travel on different connections. Its own offset says that it knows ours.
                    ready!(lane.poll_peer_offset(cx));
                    // The frame must not be split.
                    ready!(stream.poll_room_of(cx, OFFSET_BYTES, OFFSET_BYTES))?;
                    stream.send(lane.up_count(), true)?;
                    self.ended = true;
                    return Ok(()).into();
                }
                Poll::Ready(Err(PumpError::Source | PumpError::Sink)) => {
                    return Err(Cut::Socket).into();
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads at most `room` bytes; no bytes mean the end.
    fn poll_read<L: LocalStream>(
        &mut self,
        cx: &mut Context<'_>,
        local: &mut L,
        room: usize,
    ) -> Poll<Result<Bytes, Cut>> {
        if ready!(local.poll_read_ready(cx)).is_err() {
            return Err(Cut::Socket).into();
        }
        let limit = room.min(self.read_size);
        let read = if limit <= FIRST_READ {
            ready!(poll_small_read(cx, local, limit))
        } else {
            ready!(self.poll_many(cx, local, limit))
        };
        let Ok(bytes) = read else {
            return Err(Cut::Socket).into();
        };
        if bytes.len() == limit {
            self.read_size = (self.read_size * 2).min(self.max_read);
        } else if bytes.len() < self.read_size / 8 {
            self.read_size = (self.read_size / 2).max(FIRST_READ.min(self.max_read));
        }
        Ok(bytes).into()
    }

    fn poll_many<L: LocalStream>(
        &mut self,
        cx: &mut Context<'_>,
        local: &mut L,
        limit: usize,
    ) -> Poll<io::Result<Bytes>> {
        if self.buf.capacity() < self.read_size {
            self.buf.reserve(self.read_size);
        }
        let count = ready!(poll_read_buf(local, cx, &mut self.buf, limit))?;
        let bytes = if count <= COPY_LIMIT {
            let copy = Bytes::copy_from_slice(&self.buf);
            self.buf.clear();
            copy
        } else {
            self.buf.split().freeze()
        };
        Poll::Ready(Ok(bytes))
    }

    /// Checks for a reset at an interval, while the relay reads nothing. Ready with an error only.
    pub(super) fn poll_reset<L: LocalStream>(
        &mut self,
        cx: &mut Context<'_>,
        local: &L,
    ) -> Poll<Result<(), Cut>> {
        self.buf = BytesMut::new();
        if self.patient {
            return Poll::Pending;
        }
        loop {
            let timer = self
                .next_check
                .get_or_insert_with(|| Box::pin(sleep(RESET_CHECK)));
            ready!(timer.as_mut().poll(cx));
            self.next_check = None;
            // The relay waits no longer than this for what a dead socket still holds.
            if self.socket_is_dead || local.has_failed() {
                return Err(Cut::Socket).into();
            }
        }
    }
}

/// Reads a small message into the stack. A flow without bytes then needs no buffer.
fn poll_small_read<L: LocalStream>(
    cx: &mut Context<'_>,
    local: &mut L,
    limit: usize,
) -> Poll<io::Result<Bytes>> {
    let mut space = [MaybeUninit::uninit(); FIRST_READ];
    let mut buffer = ReadBuf::uninit(&mut space[..limit.min(FIRST_READ)]);
    ready!(local.poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
}
