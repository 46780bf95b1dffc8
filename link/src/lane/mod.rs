//! Lanes: connections of the transport that one flow has for itself.
//!
//! HTTP/2 carries every flow at first, so that none waits for a handshake. A flow that proves to be
//! busy ([`Nature`]) moves to a lane of its own, where its bytes go from socket to socket, and its
//! place in HTTP/2 falls silent: small messages no longer stand behind it. [`odyn_proto::wire::lane`]
//! has what is said on the wire.
//!
//! ```text
//!   guest: 1 MiB, or 512 turns, within a second ──▶ Guest::ask: dials, names the flow
//!                                    host: Lanes::serve finds it, answers READY
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
//! | the lane is lost | the flow is, unless its stream says in [`PATIENCE`] that it had ended |
//! | the host knows no lanes, has no room, or does not answer | the flow stays where it is |
//!
//! So phases, flush and verdicts are the stream's, and know nothing of lanes.

mod guest;
mod host;
mod pace;
mod pump;
mod slot;
mod threads;

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use nix::unistd::{read, write};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

pub use self::host::Lanes;
pub(crate) use self::host::Named;
use self::pump::Pump;

pub(crate) use self::guest::{Access, Guest};
pub(crate) use self::pace::{Nature, Pace};
pub(crate) use self::pump::{Broken, Step};
pub(crate) use self::slot::Slot;
pub(crate) use self::threads::Threads;
use odyn_proto::wire::lane::{NO_OFFSET, OFFSET_BYTES};

use crate::socket::{Quiet, Side, Socket};
use crate::stream::Cut;

/// When flows move to lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum LaneMode {
    /// Flows that prove to be bulk.
    #[default]
    Auto,
    /// Every TCP flow, as soon as it is open.
    Always,
    /// None.
    Never,
}

impl std::str::FromStr for LaneMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err("not one of auto, always, never"),
        }
    }
}

impl std::fmt::Display for LaneMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

/// How long a flow whose lane has ended waits for its stream to say why.
const PATIENCE: Duration = Duration::from_secs(2);

/// What one poll moves at most in one direction before others have their turn, in bytes.
pub(crate) const TURN: usize = 512 * 1024;

/// A lane that was opened, not yet in the hands of its flow.
#[derive(Debug)]
pub(crate) struct Opened {
    socket: OwnedFd,
    /// Where the other half's direction has moved over, if it has said so already.
    offset: Option<u64>,
    permits: Permits,
    pub(crate) threads: Arc<Threads>,
}

/// A lane's place among all of them, and a guest's chatty lane's among those. Held to be dropped.
#[derive(Debug)]
struct Permits(
    #[allow(dead_code)] OwnedSemaphorePermit,
    #[allow(dead_code)] Option<OwnedSemaphorePermit>,
);

/// A flow's lane.
#[derive(Debug)]
pub(crate) struct Lane {
    socket: Quiet,
    up: Pump,
    /// Bytes taken for the other half.
    up_taken: u64,
    /// What is still to be written of the offset of the up direction.
    own_offset: Bytes,
    down: Pump,
    /// Bytes taken from the other half.
    down_taken: u64,
    peer_offset: Offset,
    /// The frame behind the offset: how many bytes the other half has sent on the lane.
    last_frame: Vec<u8>,
    /// The other half has closed it, or it failed.
    ended: bool,
    patience: Option<Pin<Box<Sleep>>>,
    _permits: Permits,
}

/// Where the down direction has moved over.
#[derive(Debug)]
enum Offset {
    Reading(Vec<u8>),
    Known(u64),
}

impl Lane {
    /// Must be called in the runtime that carries the flow. `offset` is where the up direction
    /// moves over, or [`NO_OFFSET`].
    ///
    /// # Errors
    /// When the kernel can't watch one more descriptor.
    pub(crate) fn new(opened: Opened, offset: u64) -> io::Result<Self> {
        Ok(Self {
            socket: Quiet::new(opened.socket)?,
            up: Pump::new(),
            up_taken: 0,
            own_offset: Bytes::copy_from_slice(&offset.to_be_bytes()),
            down: Pump::new(),
            down_taken: 0,
            peer_offset: match opened.offset {
                Some(offset) => Offset::Known(offset),
                None => Offset::Reading(Vec::with_capacity(OFFSET_BYTES)),
            },
            last_frame: Vec::new(),
            ended: false,
            patience: None,
            _permits: opened.permits,
        })
    }

    /// The lane has ended, a direction needs it, and the stream does not say why.
    pub(crate) fn poll_lost(&mut self, cx: &mut Context<'_>, up_ended: bool) -> Poll<()> {
        let down_needs_it = match self.peer_offset {
            Offset::Known(NO_OFFSET) => false,
            Offset::Known(_) => !self.down_is_complete(),
            Offset::Reading(_) => true,
        };
        if !self.ended || up_ended && !down_needs_it {
            return Poll::Pending;
        }
        let patience = self
            .patience
            .get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
        patience.as_mut().poll(cx)
    }

    /// The same lane, watched by the runtime that we are in.
    ///
    /// # Errors
    /// When it can't watch one more descriptor; the lane is closed then.
    pub(crate) fn rehome(mut self) -> io::Result<Self> {
        self.socket = Quiet::new(self.socket.into_inner())?;
        Ok(self)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// One step of the up direction. A lane that fails is never ready: see [`Lane::poll_lost`].
    pub(crate) fn poll_up(
        &mut self,
        cx: &mut Context<'_>,
        tcp: &mut TcpStream,
    ) -> Poll<Result<Step, Broken>> {
        ready!(self.poll_own_offset(cx));
        let step = self.up.poll(cx, tcp, &mut self.socket, usize::MAX);
        match step {
            Poll::Ready(Ok(Step::Moved { taken, .. })) => self.up_taken += taken as u64,
            Poll::Ready(Err(Broken::Sink)) => {
                self.ended = true;
                return Poll::Pending;
            }
            _ => {}
        }
        step
    }

    /// Ready when all that was taken for the other half was given to the lane, or it failed.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.up.held() > 0 && !self.ended {
            if ready!(self.up.poll_give(cx, &mut self.socket)).is_err() {
                self.ended = true;
            }
        }
        Poll::Ready(())
    }

    /// Bytes that were taken for the other half and wait for room.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.up.held() > 0 || !self.own_offset.is_empty()
    }

    /// The up direction's last frame.
    pub(crate) fn up_count(&self) -> Bytes {
        Bytes::copy_from_slice(&self.up_taken.to_be_bytes())
    }

    /// Ready when the other half has been told where the up direction moves over.
    pub(crate) fn poll_own_offset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.own_offset.is_empty() {
            let bytes = &self.own_offset;
            let written = ready!(
                self.socket
                    .poll_with(cx, Side::Write, |socket| Ok(write(socket, bytes)?))
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

    /// Where the down direction moves over. Until it is known, what comes on the stream may be
    /// bytes or the last frame.
    pub(crate) fn poll_peer_offset(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        loop {
            let bytes = match &mut self.peer_offset {
                Offset::Known(offset) => return Poll::Ready(*offset),
                Offset::Reading(bytes) => bytes,
            };
            if let Ok(whole) = <[u8; OFFSET_BYTES]>::try_from(bytes.as_slice()) {
                self.peer_offset = Offset::Known(u64::from_be_bytes(whole));
                continue;
            }
            let mut rest = [0; OFFSET_BYTES];
            let room = OFFSET_BYTES - bytes.len();
            let rest = rest.get_mut(..room).unwrap_or_default();
            let count = ready!(
                self.socket
                    .poll_with(cx, Side::Read, |socket| Ok(read(socket, rest)?))
            );
            match count {
                Ok(count @ 1..) => bytes.extend_from_slice(rest.get(..count).unwrap_or_default()),
                _ => {
                    // The other half's flow had ended, or is about to be reset.
                    self.ended = true;
                    self.peer_offset = Offset::Known(NO_OFFSET);
                }
            }
        }
    }

    /// Bytes that are still to come on the stream before those on the lane.
    pub(crate) fn rest_of_stream(&self, received: u64) -> usize {
        match self.peer_offset {
            Offset::Known(offset) => {
                usize::try_from(offset.saturating_sub(received)).unwrap_or(usize::MAX)
            }
            Offset::Reading(_) => usize::MAX,
        }
    }

    /// Takes bytes of the last frame.
    ///
    /// # Errors
    /// When they can't be.
    pub(crate) fn push_last_frame(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        if self.last_frame.len() + bytes.len() > OFFSET_BYTES {
            return Err(Cut::Peer);
        }
        self.last_frame.extend_from_slice(bytes);
        Ok(())
    }

    /// The stream has ended with so many bytes.
    ///
    /// # Errors
    /// When a direction that has moved to the lane does not say how it ended there.
    pub(crate) fn end_of_stream(&self, received: u64) -> Result<(), Cut> {
        let has_moved = !matches!(self.peer_offset, Offset::Known(NO_OFFSET));
        let is_whole = self.down_count().is_some() && self.rest_of_stream(received) == 0;
        if has_moved && !is_whole {
            return Err(Cut::Peer);
        }
        Ok(())
    }

    /// Bytes that were taken from the other half and not given to the socket.
    pub(crate) fn down_held(&self) -> usize {
        self.down.held()
    }

    /// How many bytes the other half has sent on the lane, once it has said so.
    pub(crate) fn down_count(&self) -> Option<u64> {
        let whole = <[u8; OFFSET_BYTES]>::try_from(self.last_frame.as_slice()).ok()?;
        Some(u64::from_be_bytes(whole))
    }

    /// Every byte of the down direction was given to the socket.
    pub(crate) fn down_is_complete(&self) -> bool {
        self.down.held() == 0 && self.down_count() == Some(self.down_taken)
    }

    /// Bytes of the down direction that are known to be on their way.
    pub(crate) fn down_pending(&self) -> u64 {
        let coming = self
            .down_count()
            .map_or(0, |count| count.saturating_sub(self.down_taken));
        coming + self.down.held() as u64
    }

    /// One step of the down direction, which is not complete. As [`Lane::poll_up`].
    pub(crate) fn poll_down(
        &mut self,
        cx: &mut Context<'_>,
        tcp: &mut TcpStream,
    ) -> Poll<Result<Step, Broken>> {
        let rest = self
            .down_count()
            .map_or(u64::MAX, |count| count.saturating_sub(self.down_taken));
        if self.ended && self.down.held() == 0 || rest == 0 && self.down.held() == 0 {
            return Poll::Pending;
        }
        let limit = usize::try_from(rest).unwrap_or(usize::MAX);
        let step = self.down.poll(cx, &mut self.socket, tcp, limit);
        match step {
            Poll::Ready(Ok(Step::Moved { taken, .. })) => self.down_taken += taken as u64,
            Poll::Ready(Ok(Step::End) | Err(Broken::Source)) => {
                self.ended = true;
                return Poll::Pending;
            }
            _ => {}
        }
        step
    }

    /// Takes what comes from the other half and throws it away.
    pub(crate) fn discard(&mut self, cx: &mut Context<'_>) {
        let mut junk = [0; 16 * 1024];
        let mut turn = TURN;
        while !self.ended && turn > 0 {
            let taken = self
                .socket
                .poll_with(cx, Side::Read, |socket| Ok(read(socket, &mut junk)?));
            match taken {
                Poll::Pending => return,
                Poll::Ready(Ok(count @ 1..)) => turn = turn.saturating_sub(count),
                Poll::Ready(_) => self.ended = true,
            }
        }
        if !self.ended {
            cx.waker().wake_by_ref();
        }
    }
}
