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
//! A flow that gets a [`lane`](crate::lane) goes on there: see [`Flow::promote`].

mod down;
mod network;
mod program;
mod up;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use self::down::Down;
use self::up::Up;

pub(crate) use self::network::Network;
pub(crate) use self::program::Program;
use odyn_proto::wire::lane::NO_OFFSET;

use crate::lane::{Lane, Nature, Opened, Pace};
use crate::outq::{Probed, unacknowledged};
use crate::stream::{Cut, Side, Stream};

/// Bytes moved by a relay, readable while it runs.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes read from the socket and handed to the link.
    pub up: AtomicU64,
    /// Bytes that came from the link and were written to the socket.
    pub down: AtomicU64,
}

impl Counters {
    /// Bytes up and down so far.
    pub fn get(&self) -> (u64, u64) {
        (
            self.up.load(Ordering::Relaxed),
            self.down.load(Ordering::Relaxed),
        )
    }
}

/// How a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Both directions ended with a FIN.
    Closed,
    /// The TCP socket given to [`relay`] was reset by its peer.
    ResetBySocket,
    /// The other half of the link reset the flow.
    ResetByPeer,
    /// The connection of the link ended.
    LinkLost,
    /// We had to stop before it was over.
    Cut {
        /// Bytes that had been taken for the other side and are not known to have arrived there.
        undelivered: u64,
    },
}

/// Pause between looks at the send queue of a socket that is to be reset.
const ACK_PAUSE: Duration = Duration::from_millis(5);

/// Moves bytes both ways until both directions have ended, or either side gave up.
///
/// `counters` counts what was moved. The socket is closed on return; it is reset when the flow
/// did not end with [`End::Closed`]. While the guest drains ([`Phase`](crate::Phase)), a flow
/// beside its program ends when the host half has confirmed what the program wrote.
pub async fn relay(tcp: TcpStream, stream: Stream, counters: Arc<Counters>) -> End {
    relay_probed(Probed::alone(tcp), stream, counters).await
}

pub(crate) async fn relay_probed(tcp: Probed, stream: Stream, counters: Arc<Counters>) -> End {
    // Small writes are the sender's choice, already made once.
    let _ = tcp.get().set_nodelay(true);
    counters
        .up
        .fetch_add(stream.early as u64, Ordering::Relaxed);
    // Boxed: it is handed on from one future to the next, and each would have room for it.
    let mut flow = Box::new(Flow {
        up: Up::new(&stream.tuning),
        down: Down::default(),
        tcp,
        stream,
        counters,
        pace: Pace::new(),
        lane: None,
        is_apart: false,
    });
    match flow.stream.take_side() {
        Side::Program(program) => finish(program::relay, flow, program).await,
        Side::Network(network) => finish(network::relay, flow, network).await,
    }
}

/// Carries a flow to its end.
async fn finish<S, F>(relay: fn(Box<Flow>, S) -> F, flow: Box<Flow>, side: S) -> End
where
    S: Send + 'static,
    F: Future<Output = Turn<S>> + Send + 'static,
{
    match relay(flow, side).await {
        Turn::Ended(end) => end,
        // Apart, so that the many flows that stay do not carry the room for this.
        Turn::Moves(moving) => Box::pin(finish_on_lane(relay, moving)).await,
    }
}

/// Carries a flow that has a lane to its end: here while its messages are small, and in the threads
/// for lanes when it is bulk. Each half decides for itself.
async fn finish_on_lane<S, F>(relay: fn(Box<Flow>, S) -> F, moving: Box<Moving<S>>) -> End
where
    S: Send + 'static,
    F: Future<Output = Turn<S>> + Send + 'static,
{
    let Moving {
        mut flow,
        mut side,
        to,
    } = *moving;
    let Place::Lane(lane) = to else {
        return End::LinkLost;
    };
    // Whoever waits for the end of all flows may go on when this is dropped: here, where the end of
    // this one is known, and not over there.
    let _place = flow.stream.leave_place();
    let threads = Arc::clone(&lane.threads);
    let mut flow = match flow.promote(lane) {
        Ok(flow) => flow,
        Err(error) => return lost(&error),
    };
    if !flow.pace.is_bulk() {
        match relay(flow, side).await {
            Turn::Ended(end) => return end,
            Turn::Moves(moving) => (flow, side) = (moving.flow, moving.side),
        }
    }
    let rest = async move {
        match flow.rehome() {
            Ok(flow) => relay(flow, side).await,
            Err(error) => Turn::Ended(lost(&error)),
        }
    };
    match threads.run(rest).await {
        Some(Turn::Ended(end)) => end,
        // There is one lane for each flow, and nowhere to go from there.
        Some(Turn::Moves(_)) | None => End::LinkLost,
    }
}

fn lost(error: &std::io::Error) -> End {
    tracing::warn!(%error, "a flow is lost on its way to its lane");
    End::LinkLost
}

/// How far a relay has come.
enum Turn<S> {
    Ended(End),
    Moves(Box<Moving<S>>),
}

/// A flow that is to go on elsewhere.
struct Moving<S> {
    flow: Box<Flow>,
    side: S,
    to: Place,
}

enum Place {
    Lane(Opened),
    /// The threads for bulk flows.
    Threads,
}

/// How the relay of both directions ends when nothing fails.
enum Done {
    /// Both have ended.
    Closed,
    Moves(Place),
}

struct Flow {
    up: Up,
    down: Down,
    tcp: Probed,
    stream: Stream,
    counters: Arc<Counters>,
    pace: Pace,
    lane: Option<Box<Lane>>,
    /// It is carried where bulk flows are.
    is_apart: bool,
}

impl Flow {
    /// The flow on a lane, in the runtime that it is in.
    ///
    /// # Errors
    /// When there are no more descriptors to be watched.
    fn promote(self: Box<Self>, lane: Opened) -> std::io::Result<Box<Self>> {
        let mut flow = *self;
        let (taken, _) = flow.counters.get();
        let offset = if flow.up.ended() { NO_OFFSET } else { taken };
        flow.lane = Some(Box::new(Lane::new(lane, offset)?));
        Ok(Box::new(flow))
    }

    /// The flow in the threads for bulk flows, of which we are one.
    ///
    /// # Errors
    /// As [`Flow::promote`].
    fn rehome(self: Box<Self>) -> std::io::Result<Box<Self>> {
        let mut flow = *self;
        flow.is_apart = true;
        flow.tcp = flow.tcp.rehome()?;
        if let Some(lane) = flow.lane {
            flow.lane = Some(Box::new(lane.rehome()?));
        }
        Ok(Box::new(flow))
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

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Done, Cut>> {
        self.tend_lane(cx)?;
        if !self.is_apart {
            let (up, down) = self.counters.get();
            let nature = self.pace.turn(up + down);
            if self.lane.is_none() {
                if let Poll::Ready(lane) = self.stream.lane.poll(cx, nature) {
                    return Poll::Ready(Ok(Done::Moves(Place::Lane(lane))));
                }
            } else if nature == Nature::Bulk {
                return Poll::Ready(Ok(Done::Moves(Place::Threads)));
            }
        }
        let tcp = self.tcp.get_mut();
        let lane = self.lane.as_deref_mut();
        let down = self
            .down
            .poll(cx, tcp, &mut self.stream, lane, &self.counters.down)?;
        // A socket that can't be written to may still hold bytes to be read, from before it was
        // reset: they are read to their end.
        self.up.socket_is_dead = self.down.failed();
        let lane = self.lane.as_deref_mut();
        let up = self
            .up
            .poll(cx, tcp, &mut self.stream, lane, &self.counters.up)?;
        if self.down.ended_by_stream()
            && let Poll::Ready(cut) = self.stream.poll_cut(cx)
        {
            // Nothing more comes on the stream, so only here a reset can be seen.
            return Poll::Ready(Err(cut));
        }
        match (up.is_ready(), down.is_ready()) {
            (true, true) => Poll::Ready(Ok(Done::Closed)),
            (true, false) => self.up.poll_reset(cx, tcp).map_ok(|()| Done::Closed),
            (false, _) => Poll::Pending,
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.down.poll_rest(
            cx,
            self.tcp.get_mut(),
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
        let _ = self.tcp.get().set_zero_linger();
    }

    /// The connection is gone. What had properly ended is still delivered.
    async fn lose_link(&mut self) {
        if self.down.ended_by_stream() {
            let grace = self.stream.tuning.reset_grace;
            let _ = timeout(grace, self.deliver()).await;
        }
        let _ = self.tcp.get().set_zero_linger();
    }

    /// Writes all that came to the socket and waits until its peer's kernel has it: a reset throws
    /// away what is still in the send queue.
    async fn deliver(&mut self) {
        poll_fn(|cx| self.poll_rest(cx)).await;
        let tcp = self.tcp.get();
        // A socket that was reset has no peer any more (ENOTCONN), but keeps its count.
        while tcp.peer_addr().is_ok() && unacknowledged(tcp).is_ok_and(|bytes| bytes > 0) {
            sleep(ACK_PAUSE).await;
        }
    }
}
