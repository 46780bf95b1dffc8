//! The relay in the guest, beside the app's socket: it outlives the app.
//!
//! In [`Phase::Draining`](crate::drain::Phase) the app has ended, and no process reads what comes from the
//! peer. The relay must not even write it: the kernel resets a socket whose process is gone when
//! data arrives, and discards what the app wrote and the relay has not read. So the relay discards
//! what comes.
//!
//! When the app's last byte has left for the host, the relay closes the socket and waits for the
//! report on its connection. Only the report says that the byte is delivered.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::drain::flush::{FlushReport, FlushResult};
use crate::drain::{Guard, Watch};
use crate::flow::end::End;
use crate::flow::local_stream::LocalStream;
use crate::flow::stream::Cut;
use crate::flow::tcp::{MovingFlow, RelayDone, RelayTurn, TcpFlow};

/// What the relay in the guest needs.
#[derive(Debug)]
pub(crate) struct GuestSide {
    pub(crate) drain: Watch,
    /// Held until the app's last byte has left for the host.
    pub(crate) handover: Option<Guard>,
    pub(crate) flush_result: FlushResult,
}

pub(super) async fn relay<L: LocalStream>(
    mut flow: Box<TcpFlow<L>>,
    side: GuestSide,
) -> RelayTurn<L, GuestSide> {
    let result = tokio::select! {
        biased;
        // First: in this phase no byte may be written to the socket.
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
            // Nothing can be delivered to an app that has ended.
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

/// Reads what the app wrote to its end, after the app has ended.
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

/// Ready when h2 has the app's FIN.
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

/// Waits until h2 has sent the last bytes, after the app's direction has ended. In a running guest
/// the other direction has ended, too.
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

/// Passes on a reset by the app: the host gets what was read, then RST_STREAM.
async fn reset_by_app<L: LocalStream>(mut flow: Box<TcpFlow<L>>, side: GuestSide) -> End {
    let grace = flow.stream.tuning.reset_grace;
    tokio::select! {
        biased;
        () = poll_fn(|cx| flow.poll_handed_on(cx)) => {}
        () = side.drain.forced() => return settle(flow, side, None).await,
        () = reset_grace(grace, &side.drain) => {}
    }
    flow.stream.reset();
    // The host reads a lane up to its end before it passes the reset on, and the report waits for
    // that.
    flow.lane = None;
    if side.drain.is_draining() {
        settle(flow, side, Some(End::ResetBySocket)).await
    } else {
        End::ResetBySocket
    }
}

/// Waits for `grace` in a running guest, and without limit while the guest drains.
async fn reset_grace(grace: Duration, drain: &Watch) {
    let _ = timeout(grace, drain.draining()).await;
    if drain.is_draining() {
        std::future::pending::<()>().await;
    }
}

/// Waits for the report on the flow's connection. `natural` is the end of a flow that is delivered
/// whole; `None` means that the flow was cut before.
async fn settle<L: LocalStream>(
    flow: Box<TcpFlow<L>>,
    mut side: GuestSide,
    natural: Option<End>,
) -> End {
    side.handover = None;
    let TcpFlow {
        local,
        mut stream,
        counters,
        down,
        ..
    } = *flow;
    // Another connection may wait for this descriptor.
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

/// Waits until the peer has reset the flow. The report covers a connection that ends.
async fn peer_reset(stream: &mut crate::flow::stream::Stream) {
    loop {
        match poll_fn(|cx| stream.poll_cut(cx)).await {
            Cut::Peer | Cut::Gone => return,
            Cut::Socket | Cut::Link => sleep(Duration::MAX).await,
        }
    }
}
