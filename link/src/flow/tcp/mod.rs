//! Moves bytes between a TCP socket and a flow of the link.
//!
//! ```text
//!   socket ──read──▶ chunk ──▶ h2 send queue ──▶ link        up
//!   socket ◀──write── queue ◀── h2 receive queue ◀── link    down
//! ```
//!
//! Up reads only what the flow's window has room for. Down takes whatever came, at once: so it
//! sees the end or reset behind it even when the socket does not take a byte, and the bytes are
//! bounded by the window, which is opened again only after they were written.
//!
//! How a flow ends:
//!
//! | what happened | what the other side gets |
//! |---|---|
//! | socket: FIN | END_STREAM behind the last byte; the other direction goes on |
//! | stream: END_STREAM | FIN behind the last byte; the other direction goes on |
//! | socket: RST, or a write to it failed | the bytes that had been read, then RST_STREAM |
//! | stream: RST_STREAM | the bytes (and FIN) that had come, then RST |
//! | link lost | RST at once; but what had ended with END_STREAM is delivered before |
//! | stream: RST_STREAM(NO_ERROR), from a guest that leaves | the bytes and the FIN that had come, then a plain close |

//!
//! A flow that gets a [`lane`](crate::flow::lane) goes on there: see [`TcpFlow::promote`].

mod down;
mod guest;
mod host;
mod up;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::flow::end::End;
use crate::flow::tcp::down::Down;
use crate::flow::tcp::up::Up;
use crate::sockets::counters::Counters;

pub(crate) use crate::flow::tcp::guest::GuestSide;
pub(crate) use crate::flow::tcp::host::HostSide;
use odyn_proto::wire::lane::NO_OFFSET;

use crate::flow::lane::{Classifier, Lane, TrafficClass};
use crate::flow::local_stream::LocalStream;
use crate::flow::stream::{Cut, FlowSide, Stream};
use crate::transport::lane_slot::OpenedLane;

/// Pause between looks at the send queue of a socket that is to be reset.
const ACK_INTERVAL: Duration = Duration::from_millis(5);

/// Moves bytes both ways until both directions have ended, or either side gave up.
///
/// `counters` counts what was moved. The socket is closed on return; it is reset when the flow
/// did not end with [`End::Closed`]. While the guest drains ([`Phase`](crate::Phase)), a flow
/// beside its program ends when the host half has confirmed what the program wrote.
pub async fn relay<L: LocalStream>(mut local: L, stream: Stream, counters: Arc<Counters>) -> End {
    local.prepare();
    counters
        .up
        .fetch_add(stream.early as u64, Ordering::Relaxed);
    // Boxed: it is handed on from one future to the next, and each would have room for it.
    let mut flow = Box::new(TcpFlow {
        up: Up::new(&stream.tuning),
        down: Down::default(),
        local,
        stream,
        counters,
        classifier: Classifier::new(),
        lane: None,
        is_apart: false,
    });
    match flow.stream.take_side() {
        FlowSide::Guest(side) => finish(guest::relay, flow, side).await,
        FlowSide::Host(side) => finish(host::relay, flow, side).await,
    }
}

/// Carries a flow to its end.
async fn finish<L, S, F>(relay: fn(Box<TcpFlow<L>>, S) -> F, flow: Box<TcpFlow<L>>, side: S) -> End
where
    L: LocalStream,
    S: Send + 'static,
    F: Future<Output = RelayTurn<L, S>> + Send + 'static,
{
    match relay(flow, side).await {
        RelayTurn::Ended(end) => end,
        // Apart, so that the many flows that stay do not carry the room for this.
        RelayTurn::Moves(moving) => Box::pin(finish_on_lane(relay, moving)).await,
    }
}

/// Carries a flow that has a lane to its end: here while its messages are small, and in the threads
/// for lanes when it is bulk. Each half decides for itself.
async fn finish_on_lane<L, S, F>(
    relay: fn(Box<TcpFlow<L>>, S) -> F,
    moving: Box<MovingFlow<L, S>>,
) -> End
where
    L: LocalStream,
    S: Send + 'static,
    F: Future<Output = RelayTurn<L, S>> + Send + 'static,
{
    let MovingFlow {
        mut flow,
        mut side,
        to,
    } = *moving;
    let MoveTo::Lane(lane) = to else {
        return End::LinkLost;
    };
    // Whoever waits for the end of all flows may go on when this is dropped: here, where the end of
    // this one is known, and not over there.
    let _place = flow.stream.leave_counts();
    let threads = Arc::clone(&lane.threads);
    let mut flow = match flow.promote(lane) {
        Ok(flow) => flow,
        Err(error) => return lost(&error),
    };
    if !flow.classifier.is_bulk() {
        match relay(flow, side).await {
            RelayTurn::Ended(end) => return end,
            RelayTurn::Moves(moving) => (flow, side) = (moving.flow, moving.side),
        }
    }
    let rest = async move {
        match flow.rehome() {
            Ok(flow) => relay(flow, side).await,
            Err(error) => RelayTurn::Ended(lost(&error)),
        }
    };
    match threads.run(rest).await {
        Some(RelayTurn::Ended(end)) => end,
        // There is one lane for each flow, and nowhere to go from there.
        Some(RelayTurn::Moves(_)) | None => End::LinkLost,
    }
}

fn lost(error: &std::io::Error) -> End {
    tracing::warn!(%error, "a flow is lost on its way to its lane");
    End::LinkLost
}

/// How far a relay has come.
enum RelayTurn<L, S> {
    Ended(End),
    Moves(Box<MovingFlow<L, S>>),
}

/// A flow that is to go on elsewhere.
struct MovingFlow<L, S> {
    flow: Box<TcpFlow<L>>,
    side: S,
    to: MoveTo,
}

enum MoveTo {
    Lane(OpenedLane),
    /// The threads for bulk flows.
    BulkThreads,
}

/// How the relay of both directions ends when nothing fails.
enum RelayDone {
    /// Both have ended.
    Closed,
    Moves(MoveTo),
}

struct TcpFlow<L> {
    up: Up,
    down: Down,
    local: L,
    stream: Stream,
    counters: Arc<Counters>,
    classifier: Classifier,
    lane: Option<Box<Lane>>,
    /// It is carried where bulk flows are.
    is_apart: bool,
}

impl<L: LocalStream> TcpFlow<L> {
    /// The flow on a lane, in the runtime that it is in.
    ///
    /// # Errors
    /// When there are no more descriptors to be watched.
    fn promote(mut self: Box<Self>, lane: OpenedLane) -> std::io::Result<Box<Self>> {
        let (taken, _) = self.counters.get();
        let offset = if self.up.ended() { NO_OFFSET } else { taken };
        let can_splice = self.local.socket().is_some();
        self.lane = Some(Box::new(Lane::new(lane, offset, can_splice)?));
        Ok(self)
    }

    /// The flow in the threads for bulk flows, of which we are one.
    ///
    /// # Errors
    /// As [`TcpFlow::promote`].
    fn rehome(mut self: Box<Self>) -> std::io::Result<Box<Self>> {
        self.is_apart = true;
        self.local = self.local.rehome()?;
        if let Some(lane) = self.lane {
            self.lane = Some(Box::new(lane.rehome()?));
        }
        Ok(self)
    }

    /// What a lane needs also when nothing is to be sent.
    fn tend_lane(&mut self, cx: &mut Context<'_>) -> Result<(), Cut> {
        let Some(lane) = &mut self.lane else {
            return Ok(());
        };
        // The other half waits for it.
        let _ = lane.poll_own_offset(cx);
        match lane.poll_lost(cx, self.up.ended()) {
            Poll::Ready(()) => Err(Cut::Link),
            Poll::Pending => Ok(()),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<RelayDone, Cut>> {
        self.tend_lane(cx)?;
        if !self.is_apart {
            let (up, down) = self.counters.get();
            let class = self.classifier.poll(up + down);
            if self.lane.is_none() {
                if let Poll::Ready(lane) = self.stream.lane.poll(cx, class) {
                    return Poll::Ready(Ok(RelayDone::Moves(MoveTo::Lane(lane))));
                }
            } else if class == TrafficClass::Bulk {
                return Poll::Ready(Ok(RelayDone::Moves(MoveTo::BulkThreads)));
            }
        }
        let local = &mut self.local;
        let lane = self.lane.as_deref_mut();
        let down = self
            .down
            .poll(cx, local, &mut self.stream, lane, &self.counters.down)?;
        // A socket that can't be written to may still hold bytes to be read, from before it was
        // reset: they are read to their end.
        self.up.socket_is_dead = self.down.failed();
        let lane = self.lane.as_deref_mut();
        let up = self
            .up
            .poll(cx, local, &mut self.stream, lane, &self.counters.up)?;
        if self.down.ended_by_stream()
            && let Poll::Ready(cut) = self.stream.poll_cut(cx)
        {
            // Nothing more comes on the stream, so only here a reset can be seen.
            return Poll::Ready(Err(cut));
        }
        match (up.is_ready(), down.is_ready()) {
            (true, true) => Poll::Ready(Ok(RelayDone::Closed)),
            (true, false) => self.up.poll_reset(cx, local).map_ok(|()| RelayDone::Closed),
            (false, _) => Poll::Pending,
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.down.poll_rest(
            cx,
            &mut self.local,
            &mut self.stream,
            self.lane.as_deref_mut(),
            &self.counters.down,
        )
    }

    /// Ready when all that was read from the socket was handed on, so that a reset may follow.
    fn poll_handed_on(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(lane) = &mut self.lane {
            ready!(lane.poll_flush(cx));
        }
        self.stream.in_flight.poll_empty(cx)
    }

    /// The other half gave up: the socket gets what had come, then the reset.
    async fn reset_socket(&mut self) {
        let grace = self.stream.tuning.reset_grace;
        let _ = timeout(grace, self.deliver()).await;
        self.local.reset_on_close();
    }

    /// The connection is gone. What had properly ended is still delivered.
    async fn lose_link(&mut self) {
        if self.down.ended_by_stream() {
            let grace = self.stream.tuning.reset_grace;
            let _ = timeout(grace, self.deliver()).await;
        }
        self.local.reset_on_close();
    }

    /// Writes all that came to the socket and waits until its peer's kernel has it: a reset throws
    /// away what is still in the send queue.
    async fn deliver(&mut self) {
        poll_fn(|cx| self.poll_rest(cx)).await;
        while self.local.unacknowledged() > 0 {
            sleep(ACK_INTERVAL).await;
        }
    }
}
