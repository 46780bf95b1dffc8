//! The relay beside a program: at the end of the guest it outlives the program.
//!
//! In [`Phase::Draining`](crate::Phase) nobody reads what comes from the peer. It must not even be
//! written: data that arrives at a socket whose process is gone makes the kernel reset it, and
//! throw away what the program had written and we have not read. So it is dropped here.
//!
//! When the program's last byte has left for the host half the socket is closed and the flow waits
//! for the verdict on its connection; only that says that the byte is delivered.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Done, End, Flow, Moving, Turn};
use crate::drain::{Busy, Drain};
use crate::flush::{Outcome, Verdict};
use crate::stream::Cut;

/// What a flow beside a program needs.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) drain: Drain,
    /// Until its last byte has left for the host half.
    pub(crate) busy: Option<Busy>,
    pub(crate) outcome: Outcome,
}

pub(super) async fn relay(mut flow: Box<Flow>, program: Program) -> Turn<Program> {
    let result = tokio::select! {
        biased;
        // First: from here on not a byte may be written to the socket.
        () = program.drain.draining() => return Turn::Ended(drain(flow, program).await),
        result = poll_fn(|cx| flow.poll(cx)) => result,
    };
    Turn::Ended(match result {
        Ok(Done::Moves(to)) => {
            return Turn::Moves(Box::new(Moving {
                flow,
                side: program,
                to,
            }));
        }
        Ok(Done::Closed) => closed(flow, program).await,
        Err(Cut::Socket) => reset_by_program(flow, program).await,
        Err(Cut::Peer | Cut::Gone) => {
            // For a program that is gone there is nothing to deliver.
            tokio::select! {
                () = flow.reset_socket() => {}
                () = program.drain.draining() => {}
            }
            End::ResetByPeer
        }
        Err(Cut::Link) => {
            tokio::select! {
                () = flow.lose_link() => {}
                () = program.drain.draining() => {}
            }
            End::LinkLost
        }
    })
}

/// The program is gone: what it wrote is read to its end.
async fn drain(mut flow: Box<Flow>, program: Program) -> End {
    flow.down.discard(&mut flow.stream);
    flow.up.patient = true;
    let result = tokio::select! {
        biased;
        result = poll_fn(|cx| poll_last(&mut flow, cx)) => result,
        () = program.drain.forced() => return settle(flow, program, None).await,
    };
    match result {
        Ok(()) => closed(flow, program).await,
        Err(Cut::Socket) => reset_by_program(flow, program).await,
        Err(Cut::Peer | Cut::Gone) => End::ResetByPeer,
        Err(Cut::Link) => End::LinkLost,
    }
}

/// Ready when the program's FIN was handed to h2.
fn poll_last(flow: &mut Flow, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
    flow.tend_lane(cx)?;
    let lane = flow.lane.as_deref_mut();
    flow.down.poll_discard(cx, &mut flow.stream, lane)?;
    let (tcp, lane) = (flow.tcp.get_mut(), flow.lane.as_deref_mut());
    let up = flow
        .up
        .poll(cx, tcp, &mut flow.stream, lane, &flow.counters.up)?;
    if flow.down.ended_by_stream()
        && let Poll::Ready(cut) = flow.stream.poll_cut(cx)
    {
        return Poll::Ready(Err(cut));
    }
    ready!(up);
    Poll::Ready(Ok(()))
}

/// The program's direction has ended, and in a running guest the other one, too: the last bytes
/// may still be in h2.
async fn closed(mut flow: Box<Flow>, program: Program) -> End {
    tokio::select! {
        biased;
        () = flow.stream.in_flight.empty() => {}
        () = program.drain.forced() => return settle(flow, program, None).await,
    }
    if flow.stream.in_flight.lost() {
        return match poll_fn(|cx| Poll::Ready(flow.stream.poll_cut(cx))).await {
            Poll::Ready(Cut::Peer | Cut::Gone) => End::ResetByPeer,
            _ => End::LinkLost,
        };
    }
    if program.drain.is_draining() {
        settle(flow, program, Some(End::Closed)).await
    } else {
        End::Closed
    }
}

/// The socket is gone: the host half gets what had been read, then the reset.
async fn reset_by_program(mut flow: Box<Flow>, program: Program) -> End {
    let grace = flow.stream.tuning.reset_grace;
    tokio::select! {
        biased;
        () = poll_fn(|cx| flow.poll_handed_on(cx)) => {}
        () = program.drain.forced() => return settle(flow, program, None).await,
        () = patience(grace, &program.drain) => {}
    }
    flow.stream.reset();
    // The other half reads a lane up to its end before it passes the reset on, and the verdict
    // waits for that.
    flow.lane = None;
    if program.drain.is_draining() {
        settle(flow, program, Some(End::ResetBySocket)).await
    } else {
        End::ResetBySocket
    }
}

/// `grace` in a running guest; at its end, as long as it takes.
async fn patience(grace: Duration, drain: &Drain) {
    let _ = timeout(grace, drain.draining()).await;
    if drain.is_draining() {
        std::future::pending::<()>().await;
    }
}

/// Waits for the verdict. `natural` is how the flow ends when all is delivered; without it, it was
/// cut before all was handed over.
async fn settle(flow: Box<Flow>, mut program: Program, natural: Option<End>) -> End {
    program.busy = None;
    let Flow {
        tcp,
        mut stream,
        counters,
        down,
        ..
    } = *flow;
    // Another connection that waits for a descriptor may need it.
    drop(tcp);
    let (taken, _) = counters.get();
    let stream_id = stream.send.stream_id().as_u32();
    let both_ended = down.ended_by_stream();
    let verdict = tokio::select! {
        biased;
        verdict = program.outcome.wait() => verdict,
        () = peer_reset(&mut stream), if natural == Some(End::Closed) && !both_ended => {
            return End::ResetByPeer;
        }
    };
    let acknowledged = match (&*verdict, natural) {
        (Verdict::Lost, _) => return End::LinkLost,
        (Verdict::HandedOver, Some(_)) => taken,
        (Verdict::HandedOver | Verdict::Unconfirmed, _) => 0,
        (Verdict::Answered(_), _) => match verdict.take(stream_id) {
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
            program.drain.note_cut(undelivered);
            End::Cut { undelivered }
        }
    }
}

/// Waits until the peer has reset the flow. A connection that ends is the verdict's matter.
async fn peer_reset(stream: &mut crate::stream::Stream) {
    loop {
        match poll_fn(|cx| stream.poll_cut(cx)).await {
            Cut::Peer | Cut::Gone => return,
            Cut::Socket | Cut::Link => sleep(Duration::MAX).await,
        }
    }
}
