//! Lanes: a lane is a transport connection that carries one flow.
//!
//! HTTP/2 carries every flow at first, so that no flow waits for a handshake. A flow that turns out
//! to be busy ([`TrafficClass`]) moves to a lane, where its bytes go from socket to socket, and its
//! stream in HTTP/2 falls silent: small messages no longer wait behind it.
//! [`odyn_proto::wire::lane`] defines the bytes on the wire.
//!
//! ```text
//!   guest: 1 MiB, or 512 polls, within a second ──▶ GuestLanes::ask: dials, names the flow
//!                                    host: HostLanes::serve finds it, answers READY
//!   each half: its relay ends with Moves, and goes on with a Lane; once it is bulk, in the threads
//!   for that
//!   each direction by itself: what it has given to HTTP/2 ends at an offset, the lane goes on
//! ```
//!
//! | what happens | on a lane |
//! |---|---|
//! | FIN | the number of bytes of the lane, as the stream's last frame: never read from the lane |
//! | RST | `RST_STREAM` as without a lane, and the lane is closed behind the bytes that had been read: the other half first delivers them |
//! | the HTTP/2 connection is lost | the flow is, too |
//! | the lane is lost | the flow is, unless its stream says in [`STREAM_END_TIMEOUT`] that it had ended |
//! | the host knows no lanes, has no room, or does not answer | the flow stays where it is |
//!
//! Phases, flushes and verdicts belong to the stream; lanes do not change them.

mod classifier;
mod guest;
mod host;
mod pump;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use nix::unistd::{read, write};
use tokio::time::{Sleep, sleep};

use crate::transport::lane_slot::{LanePermits, OpenedLane};

pub use crate::flow::lane::host::HostLanes;
pub(crate) use crate::flow::lane::host::NamedConnection;
use crate::flow::lane::pump::{Copied, Pump};

pub(crate) use crate::flow::lane::classifier::{Classifier, TrafficClass};
pub(crate) use crate::flow::lane::guest::{GuestLanes, LaneAccess};
pub(crate) use crate::flow::lane::pump::{PumpError, PumpStep};
use odyn_proto::wire::lane::{NO_OFFSET, OFFSET_BYTES};

use crate::flow::local_stream::LocalStream;
use crate::flow::stream::Cut;
use crate::sockets::readiness::{PollSocket, Readiness};
use crate::transport::socket::LinkSocket;

/// How long a flow whose lane has ended waits for its stream to give the reason.
const STREAM_END_TIMEOUT: Duration = Duration::from_secs(2);

/// Largest number of bytes that one poll moves in one direction.
pub(crate) const POLL_BUDGET: usize = 512 * 1024;

/// A flow's lane.
#[derive(Debug)]
pub(crate) struct Lane {
    socket: LinkSocket,
    up: Pump,
    /// Bytes taken from the local side for the other half.
    up_taken: u64,
    /// Bytes of the up direction's offset that are not written yet.
    own_offset: Bytes,
    down: Pump,
    /// Bytes taken from the lane.
    down_taken: u64,
    peer_offset: PeerOffset,
    /// The stream's last frame: how many bytes the other half has sent on the lane.
    last_frame: Vec<u8>,
    /// The other half has closed the lane, or the lane failed.
    ended: bool,
    end_timeout: Option<Pin<Box<Sleep>>>,
    _permits: LanePermits,
}

/// The stream offset at which the down direction moves to the lane.
#[derive(Debug)]
enum PeerOffset {
    Reading(Vec<u8>),
    Known(u64),
}

impl Lane {
    /// Makes a lane for a flow in the runtime that calls this. `offset` is where the up direction
    /// moves to the lane, or [`NO_OFFSET`]. `can_splice`: the local side is a socket.
    ///
    /// # Errors
    /// When the kernel can't watch one more descriptor.
    pub(crate) fn new(opened: OpenedLane, offset: u64, can_splice: bool) -> io::Result<Self> {
        Ok(Self {
            socket: LinkSocket::new(opened.socket)?,
            up: Pump::new(can_splice),
            up_taken: 0,
            own_offset: Bytes::copy_from_slice(&offset.to_be_bytes()),
            down: Pump::new(can_splice),
            down_taken: 0,
            peer_offset: match opened.offset {
                Some(offset) => PeerOffset::Known(offset),
                None => PeerOffset::Reading(Vec::with_capacity(OFFSET_BYTES)),
            },
            last_frame: Vec::new(),
            ended: false,
            end_timeout: None,
            _permits: opened.permits,
        })
    }

    /// Ready when the lane has ended and a direction still needs it. The stream may first say why.
    pub(crate) fn poll_lost(&mut self, cx: &mut Context<'_>, up_ended: bool) -> Poll<()> {
        let down_needs_it = match self.peer_offset {
            PeerOffset::Known(NO_OFFSET) => false,
            PeerOffset::Known(_) => !self.down_is_complete(),
            PeerOffset::Reading(_) => true,
        };
        if !self.ended || up_ended && !down_needs_it {
            return Poll::Pending;
        }
        let end_timeout = self
            .end_timeout
            .get_or_insert_with(|| Box::pin(sleep(STREAM_END_TIMEOUT)));
        end_timeout.as_mut().poll(cx)
    }

    /// Registers the lane in the runtime that calls this.
    ///
    /// # Errors
    /// When the runtime can't watch one more descriptor; the lane is closed then.
    pub(crate) fn rehome(mut self) -> io::Result<Self> {
        self.socket = LinkSocket::new(self.socket.into_inner())?;
        Ok(self)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Moves one step of the up direction. A lane that fails is never ready: see
    /// [`Lane::poll_lost`].
    pub(crate) fn poll_up<L: LocalStream>(
        &mut self,
        cx: &mut Context<'_>,
        local: &mut L,
    ) -> Poll<Result<PumpStep, PumpError>> {
        ready!(self.poll_own_offset(cx));
        let step = match local.socket() {
            Some(tcp) => self.up.poll(cx, tcp, &mut self.socket, usize::MAX),
            None => self
                .up
                .poll(cx, &mut Copied(local), &mut self.socket, usize::MAX),
        };
        match step {
            Poll::Ready(Ok(PumpStep::Moved { taken, .. })) => self.up_taken += taken as u64,
            Poll::Ready(Err(PumpError::Sink)) => {
                self.ended = true;
                return Poll::Pending;
            }
            _ => {}
        }
        step
    }

    /// Ready when the lane has every byte for the other half, or has failed.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.up.held() > 0 && !self.ended {
            if ready!(self.up.poll_give(cx, &mut self.socket)).is_err() {
                self.ended = true;
            }
        }
        Poll::Ready(())
    }

    /// Whether bytes for the other half wait for room in the lane.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.up.held() > 0 || !self.own_offset.is_empty()
    }

    /// The last frame of the up direction's stream.
    pub(crate) fn up_count(&self) -> Bytes {
        Bytes::copy_from_slice(&self.up_taken.to_be_bytes())
    }

    /// Ready when the other half knows at which offset the up direction moves.
    pub(crate) fn poll_own_offset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.own_offset.is_empty() {
            let bytes = &self.own_offset;
            let written = ready!(
                self.socket
                    .poll_with(cx, Readiness::Write, |socket| Ok(write(socket, bytes)?))
            );
            match written {
                Ok(count @ 1..) => drop(self.own_offset.split_to(count)),
                _ => {
                    self.ended = true;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }

    /// Reads the offset at which the down direction moves. Until it is known, data on the stream
    /// may be payload or the last frame.
    pub(crate) fn poll_peer_offset(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        loop {
            let bytes = match &mut self.peer_offset {
                PeerOffset::Known(offset) => return Poll::Ready(*offset),
                PeerOffset::Reading(bytes) => bytes,
            };
            if let Ok(whole) = <[u8; OFFSET_BYTES]>::try_from(bytes.as_slice()) {
                self.peer_offset = PeerOffset::Known(u64::from_be_bytes(whole));
                continue;
            }
            let mut rest = [0; OFFSET_BYTES];
            let room = OFFSET_BYTES - bytes.len();
            let rest = rest.get_mut(..room).unwrap_or_default();
            let count = ready!(
                self.socket
                    .poll_with(cx, Readiness::Read, |socket| Ok(read(socket, rest)?))
            );
            match count {
                Ok(count @ 1..) => bytes.extend_from_slice(rest.get(..count).unwrap_or_default()),
                _ => {
                    // The peer's flow had ended, or is about to be reset.
                    self.ended = true;
                    self.peer_offset = PeerOffset::Known(NO_OFFSET);
                }
            }
        }
    }

    /// Bytes that the stream still brings before those on the lane.
    pub(crate) fn rest_of_stream(&self, received: u64) -> usize {
        match self.peer_offset {
            PeerOffset::Known(offset) => {
                usize::try_from(offset.saturating_sub(received)).unwrap_or(usize::MAX)
            }
            PeerOffset::Reading(_) => usize::MAX,
        }
    }

    /// Takes bytes of the stream's last frame.
    ///
    /// # Errors
    /// When the frame gets too long.
    pub(crate) fn push_last_frame(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        if self.last_frame.len() + bytes.len() > OFFSET_BYTES {
            return Err(Cut::Peer);
        }
        self.last_frame.extend_from_slice(bytes);
        Ok(())
    }

    /// Notes that the stream has ended after `received` bytes.
    ///
    /// # Errors
    /// When the direction has moved to the lane and the peer did not send its number of bytes.
    pub(crate) fn end_of_stream(&self, received: u64) -> Result<(), Cut> {
        let has_moved = !matches!(self.peer_offset, PeerOffset::Known(NO_OFFSET));
        let is_whole = self.down_count().is_some() && self.rest_of_stream(received) == 0;
        if has_moved && !is_whole {
            return Err(Cut::Peer);
        }
        Ok(())
    }

    /// Bytes that were taken from the lane and not written to the local side.
    pub(crate) fn down_held(&self) -> usize {
        self.down.held()
    }

    /// The number of bytes that the peer has sent on the lane, once the peer has sent it.
    pub(crate) fn down_count(&self) -> Option<u64> {
        let whole = <[u8; OFFSET_BYTES]>::try_from(self.last_frame.as_slice()).ok()?;
        Some(u64::from_be_bytes(whole))
    }

    /// Whether the socket has every byte of the down direction.
    pub(crate) fn down_is_complete(&self) -> bool {
        self.down.held() == 0 && self.down_count() == Some(self.down_taken)
    }

    /// Bytes that the other half says it has sent, and the socket lacks.
    pub(crate) fn down_pending(&self) -> u64 {
        let coming = self
            .down_count()
            .map_or(0, |count| count.saturating_sub(self.down_taken));
        coming + self.down.held() as u64
    }

    /// Moves one step of the down direction, which is not complete. As [`Lane::poll_up`].
    pub(crate) fn poll_down<L: LocalStream>(
        &mut self,
        cx: &mut Context<'_>,
        local: &mut L,
    ) -> Poll<Result<PumpStep, PumpError>> {
        let rest = self
            .down_count()
            .map_or(u64::MAX, |count| count.saturating_sub(self.down_taken));
        if self.ended && self.down.held() == 0 || rest == 0 && self.down.held() == 0 {
            return Poll::Pending;
        }
        let limit = usize::try_from(rest).unwrap_or(usize::MAX);
        let step = match local.socket() {
            Some(tcp) => self.down.poll(cx, &mut self.socket, tcp, limit),
            None => self
                .down
                .poll(cx, &mut self.socket, &mut Copied(local), limit),
        };
        match step {
            Poll::Ready(Ok(PumpStep::Moved { taken, .. })) => self.down_taken += taken as u64,
            Poll::Ready(Ok(PumpStep::End) | Err(PumpError::Source)) => {
                self.ended = true;
                return Poll::Pending;
            }
            _ => {}
        }
        step
    }

    /// Reads what comes from the other half, and discards it.
    pub(crate) fn discard(&mut self, cx: &mut Context<'_>) {
        let mut junk = [0; 16 * 1024];
        let mut budget = POLL_BUDGET;
        while !self.ended && budget > 0 {
            let taken = self
                .socket
                .poll_with(cx, Readiness::Read, |socket| Ok(read(socket, &mut junk)?));
            match taken {
                Poll::Pending => return,
                Poll::Ready(Ok(count @ 1..)) => budget = budget.saturating_sub(count),
                Poll::Ready(_) => self.ended = true,
            }
        }
        if !self.ended {
            cx.waker().wake_by_ref();
        }
    }
}
