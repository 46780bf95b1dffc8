//! Moves bytes between a TCP socket and a flow of the link.
//!
//! ```text
//!   socket ──read──▶ chunk ──▶ h2 send queue ──▶ link        up
//!   socket ◀──write── queue ◀── h2 receive queue ◀── link    down
//! ```
//!
//! Up reads only what the flow's window has room for. Down reads at once whatever came: the relay
//! then sees the end or the reset behind it, even when the socket takes no byte. The window bounds
//! these bytes: the relay opens it again only after it has written them.
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

/// Interval of the checks of the send queue of a socket that will be reset.
const ACK_INTERVAL: Duration = Duration::from_millis(5);

/// Moves bytes both ways until both directions have ended, or one side gave up.
///
/// `counters` counts what was moved. The socket is closed on return; it is reset when the flow
/// did not end with [`End::Closed`]. While the guest drains ([`Phase`](crate::drain::Phase)), the
/// relay beside the app ends when the host has confirmed what the app wrote.
pub async fn relay<L: LocalStream>(mut local: L, stream: Stream, counters: Arc<Counters>) -> End {
    local.prepare();
    counters
        .up
        .fetch_add(stream.early as u64, Ordering::Relaxed);
    // Boxed: one future passes it to the next, and each would reserve room for it.
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

/// Relays a flow to its end.
async fn finish<L, S, F>(relay: fn(Box<TcpFlow<L>>, S) -> F, flow: Box<TcpFlow<L>>, side: S) -> End
where
    L: LocalStream,
    S: Send + 'static,
    F: Future<Output = RelayTurn<L, S>> + Send + 'static,
{
    match relay(flow, side).await {
        RelayTurn::Ended(end) => end,
        // Boxed, so that the many flows that stay on HTTP/2 do not reserve room for this.
        RelayTurn::Moves(moving) => Box::pin(finish_on_lane(relay, moving)).await,
    }
}

/// Relays a flow on a lane to its end. The flow stays in this runtime while its messages are small;
/// a bulk flow moves to the lane threads. Each half decides by itself.
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
    // The drop of these counts ends the wait for the end of all flows. The drop happens here, where
    // the end of this flow is known, and not in the lane threads.
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
        // A flow has one lane, and moves no further from there.
        Some(RelayTurn::Moves(_)) | None => End::LinkLost,
    }
}

fn lost(error: &std::io::Error) -> End {
    tracing::warn!(%error, "a flow is lost on its way to its lane");
    End::LinkLost
}

/// How a turn of the relay ended.
enum RelayTurn<L, S> {
    Ended(End),
    Moves(Box<MovingFlow<L, S>>),
}

/// A flow that moves to a lane, or to the lane threads.
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

/// How the relay ends when nothing fails.
enum RelayDone {
    /// Both directions have ended.
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
    /// The flow is in the threads for bulk flows.
    is_apart: bool,
}

impl<L: LocalStream> TcpFlow<L> {
    /// Moves the flow to a lane, in its present runtime.
    ///
    /// # Errors
    /// When the runtime can watch no more descriptors.
    fn promote(mut self: Box<Self>, lane: OpenedLane) -> std::io::Result<Box<Self>> {
        let (taken, _) = self.counters.get();
        let offset = if self.up.ended() { NO_OFFSET } else { taken };
        let can_splice = self.local.socket().is_some();
        self.lane = Some(Box::new(Lane::new(lane, offset, can_splice)?));
        Ok(self)
    }

    /// Registers the flow in the bulk thread that calls this.
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

    /// Does what a lane needs even while no bytes are sent.
    fn tend_lane(&mut self, cx: &mut Context<'_>) -> Result<(), Cut> {
        let Some(lane) = &mut self.lane else {
            return Ok(());
        };
        // The other half waits for the offset.
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
        // A socket that takes no writes may still hold bytes from before its reset: the relay reads
        // them to their end.
        self.up.socket_is_dead = self.down.failed();
        let lane = self.lane.as_deref_mut();
        let up = self
            .up
            .poll(cx, local, &mut self.stream, lane, &self.counters.up)?;
        if self.down.ended_by_stream()
            && let Poll::Ready(cut) = self.stream.poll_cut(cx)
        {
            // The stream brings no more data, so only this poll sees a reset.
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

    /// Ready when h2 and the lane have all that was read. A reset may follow.
    fn poll_handed_on(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(lane) = &mut self.lane {
            ready!(lane.poll_flush(cx));
        }
        self.stream.in_flight.poll_empty(cx)
    }

    /// Passes on the other half's reset: the socket gets what came, then the reset.
    async fn reset_socket(&mut self) {
        let grace = self.stream.tuning.reset_grace;
        let _ = timeout(grace, self.deliver()).await;
        self.local.reset_on_close();
    }

    /// Ends a flow whose connection is lost. A direction that END_STREAM had ended is still
    /// delivered.
    async fn lose_link(&mut self) {
        if self.down.ended_by_stream() {
            let grace = self.stream.tuning.reset_grace;
            let _ = timeout(grace, self.deliver()).await;
        }
        self.local.reset_on_close();
    }

    /// Writes all that came, and waits until the peer's kernel has it. A reset discards what is
    /// still in the send queue.
    async fn deliver(&mut self) {
        poll_fn(|cx| self.poll_rest(cx)).await;
        while self.local.unacknowledged() > 0 {
            sleep(ACK_INTERVAL).await;
        }
    }
}
