//! The relay beside a side: at the end of the guest it outlives the side.
//!
//! In [`Phase::Draining`](crate::Phase) nobody reads what comes from the peer. It must not even be
//! written: data that arrives at a socket whose process is gone makes the kernel reset it, and
//! throw away what the side had written and we have not read. So it is dropped here.
//!
//! When the side's last byte has left for the host half the socket is closed and the flow waits
//! for the report on its connection; only that says that the byte is delivered.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::drain::flush::{FlushReport, FlushResult};
use crate::drain::guard::DrainGuard;
use crate::drain::phase::Drain;
use crate::flow::end::End;
use crate::flow::local_stream::LocalStream;
use crate::flow::stream::Cut;
use crate::flow::tcp::{MovingFlow, RelayDone, RelayTurn, TcpFlow};

/// What a flow beside a side needs.
#[derive(Debug)]
pub(crate) struct GuestSide {
    pub(crate) drain: Drain,
    /// Until its last byte has left for the host half.
    pub(crate) drain_guard: Option<DrainGuard>,
    pub(crate) flush_result: FlushResult,
}

pub(super) async fn relay<L: LocalStream>(
    mut flow: Box<TcpFlow<L>>,
    side: GuestSide,
) -> RelayTurn<L, GuestSide> {
    let result = tokio::select! {
        biased;
        // First: from here on not a byte may be written to the socket.
        () = side.drain.draining() => return RelayTurn::Ended(drain(flow, side).await),
        result = poll_fn(|cx| flow.poll(cx)) => result,
    };
    RelayTurn::Ended(match result {
        Ok(RelayDone::Moves(to)) => {
            return RelayTurn::Moves(Box::new(MovingFlow { flow, side, to }));
        }
        Ok(RelayDone::Closed) => closed(flow, side).await,
        Err(Cut::Socket) => reset_by_app(flow, side).await,
        Err(Cut::Peer | Cut::Gone) => {
            // For a side that is gone there is nothing to deliver.
            tokio::select! {
                () = flow.reset_socket() => {}
                () = side.drain.draining() => {}
            }
            End::ResetByPeer
        }
        Err(Cut::Link) => {
            tokio::select! {
                () = flow.lose_link() => {}
                () = side.drain.draining() => {}
            }
            End::LinkLost
        }
    })
}

/// The side is gone: what it wrote is read to its end.
async fn drain<L: LocalStream>(mut flow: Box<TcpFlow<L>>, side: GuestSide) -> End {
    flow.down.discard(&mut flow.stream);
    flow.up.patient = true;
    flow.local.app_has_ended();
    let result = tokio::select! {
        biased;
        result = poll_fn(|cx| poll_last(&mut flow, cx)) => result,
        () = side.drain.forced() => return settle(flow, side, None).await,
    };
    match result {
        Ok(()) => closed(flow, side).await,
        Err(Cut::Socket) => reset_by_app(flow, side).await,
        Err(Cut::Peer | Cut::Gone) => End::ResetByPeer,
        Err(Cut::Link) => End::LinkLost,
    }
}

/// Ready when the side's FIN was handed to h2.
fn poll_last<L: LocalStream>(flow: &mut TcpFlow<L>, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
    flow.tend_lane(cx)?;
    let lane = flow.lane.as_deref_mut();
    flow.down.poll_discard(cx, &mut flow.stream, lane)?;
    let (local, lane) = (&mut flow.local, flow.lane.as_deref_mut());
    let up = flow
        .up
        .poll(cx, local, &mut flow.stream, lane, &flow.counters.up)?;
    if flow.down.ended_by_stream()
        && let Poll::Ready(cut) = flow.stream.poll_cut(cx)
    {
        return Poll::Ready(Err(cut));
    }
    ready!(up);
    Poll::Ready(Ok(()))
}

/// The side's direction has ended, and in a running guest the other one, too: the last bytes
/// may still be in h2.
async fn closed<L: LocalStream>(mut flow: Box<TcpFlow<L>>, side: GuestSide) -> End {
    tokio::select! {
        biased;
        () = flow.stream.in_flight.empty() => {}
        () = side.drain.forced() => return settle(flow, side, None).await,
    }
    if flow.stream.in_flight.lost() {
        return match poll_fn(|cx| Poll::Ready(flow.stream.poll_cut(cx))).await {
            Poll::Ready(Cut::Peer | Cut::Gone) => End::ResetByPeer,
            _ => End::LinkLost,
        };
    }
    if side.drain.is_draining() {
        settle(flow, side, Some(End::Closed)).await
    } else {
        End::Closed
    }
}

/// The socket is gone: the host half gets what had been read, then the reset.
async fn reset_by_app<L: LocalStream>(mut flow: Box<TcpFlow<L>>, side: GuestSide) -> End {
    let grace = flow.stream.tuning.reset_grace;
    tokio::select! {
        biased;
        () = poll_fn(|cx| flow.poll_handed_on(cx)) => {}
        () = side.drain.forced() => return settle(flow, side, None).await,
        () = reset_grace(grace, &side.drain) => {}
    }
    flow.stream.reset();
    // The other half reads a lane up to its end before it passes the reset on, and the report
    // waits for that.
    flow.lane = None;
    if side.drain.is_draining() {
        settle(flow, side, Some(End::ResetBySocket)).await
    } else {
        End::ResetBySocket
    }
}

/// `grace` in a running guest; at its end, as long as it takes.
async fn reset_grace(grace: Duration, drain: &Drain) {
    let _ = timeout(grace, drain.draining()).await;
    if drain.is_draining() {
        std::future::pending::<()>().await;
    }
}

/// Waits for the report. `natural` is how the flow ends when all is delivered; without it, it was
/// cut before all was handed over.
async fn settle<L: LocalStream>(
    flow: Box<TcpFlow<L>>,
    mut side: GuestSide,
    natural: Option<End>,
) -> End {
    side.drain_guard = None;
    let TcpFlow {
        local,
        mut stream,
        counters,
        down,
        ..
    } = *flow;
    // Another connection that waits for a descriptor may need it.
    drop(local);
    let (taken, _) = counters.get();
    let stream_id = stream.send.stream_id().as_u32();
    let both_ended = down.ended_by_stream();
    let report = tokio::select! {
        biased;
        report = side.flush_result.wait() => report,
        () = peer_reset(&mut stream), if natural == Some(End::Closed) && !both_ended => {
            return End::ResetByPeer;
        }
    };
    let acknowledged = match (&*report, natural) {
        (FlushReport::Lost, _) => return End::LinkLost,
        (FlushReport::HandedOver, Some(_)) => taken,
        (FlushReport::HandedOver | FlushReport::Unconfirmed, _) => 0,
        (FlushReport::Answered(_), _) => match report.take(stream_id) {
            Some(flow) => flow.acknowledged,
            None if natural.is_some() => taken,
            None => 0,
        },
    };
    let undelivered = taken.saturating_sub(acknowledged);
    match natural {
        Some(end) if undelivered == 0 => {
            if end == End::Closed && !both_ended {
                stream.leave();
            }
            end
        }
        _ => {
            side.drain.note_cut(undelivered);
            End::Cut { undelivered }
        }
    }
}

/// Waits until the peer has reset the flow. A connection that ends is the report's matter.
async fn peer_reset(stream: &mut crate::flow::stream::Stream) {
    loop {
        match poll_fn(|cx| stream.poll_cut(cx)).await {
            Cut::Peer | Cut::Gone => return,
            Cut::Socket | Cut::Link => sleep(Duration::MAX).await,
        }
    }
}
