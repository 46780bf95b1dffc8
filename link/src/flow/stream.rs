//! One TCP flow on the link.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use crate::config::Tuning;
use crate::drain::{Guard, Trigger};
use crate::flow::early_data::SentEarly;
use crate::flow::lane::LaneAccess;
use crate::flow::lease::StreamLease;
use crate::flow::tcp::{GuestSide, HostSide};
use crate::http2::chunk::{Chunk, InFlight};

/// The link's end of a TCP flow, for [`relay`](crate::relay).
///
/// Dropping it resets the flow.
#[derive(Debug)]
pub struct Stream {
    pub(crate) send: SendStream<Chunk>,
    pub(crate) recv: RecvStream,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) tuning: Arc<Tuning>,
    /// `None` once the relay has taken it.
    side: Option<FlowSide>,
    /// Counts the flow in the pool that opened it.
    lease: Option<StreamLease>,
    /// Counts the flow in a guest's drain, when it is in no pool.
    pub(crate) open_flow: Option<Guard>,
    /// How the flow gets a lane.
    pub(crate) lane: LaneAccess,
    /// Bytes that were taken from the socket before the relay began.
    pub(crate) early: usize,
}

/// The socket's side of the flow.
#[derive(Debug)]
pub(crate) enum FlowSide {
    /// The app, in the guest.
    Guest(GuestSide),
    /// The network, on the host.
    Host(HostSide),
}

/// What cut a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The TCP socket of this half.
    Socket,
    /// The other half sent RST_STREAM.
    Peer,
    /// The other half sent RST_STREAM(NO_ERROR): it leaves, and has sent everything before.
    Gone,
    /// The connection ended.
    Link,
}

/// Which cut an error of a stream means.
pub(crate) fn cut_by(error: &h2::Error) -> Cut {
    // A reset that h2 itself sends means that the other half broke the protocol on this stream.
    if error.is_reset() {
        cut_for(error.reason())
    } else {
        Cut::Link
    }
}

fn cut_for(reason: Option<Reason>) -> Cut {
    match reason {
        Some(Reason::NO_ERROR) => Cut::Gone,
        _ => Cut::Peer,
    }
}

impl Stream {
    pub(crate) fn new(
        send: SendStream<Chunk>,
        recv: RecvStream,
        tuning: Arc<Tuning>,
        side: Option<FlowSide>,
        lane: LaneAccess,
        lease: Option<StreamLease>,
    ) -> Self {
        Self {
            send,
            recv,
            in_flight: Arc::default(),
            tuning,
            side,
            lease,
            open_flow: None,
            lane,
            early: 0,
        }
    }

    /// Notes the bytes that are on the stream already.
    pub(crate) fn began_with(&mut self, sent: SentEarly) {
        self.early = sent.bytes;
        self.in_flight = sent.in_flight;
    }

    /// Takes the flow's side. A stream without one serves an app that does not end.
    pub(crate) fn take_side(&mut self) -> FlowSide {
        self.side.take().unwrap_or_else(|| {
            FlowSide::Guest(GuestSide {
                drain: Trigger::default().watch(),
                handover: None,
                flush_result: crate::drain::flush::FlushResult::default(),
            })
        })
    }

    /// Takes the flow's counts out of the stream, for a caller that keeps them.
    pub(crate) fn leave_counts(&mut self) -> (Option<StreamLease>, Option<Guard>) {
        (self.lease.take(), self.open_flow.take())
    }

    /// Waits for room to send, at least 1 byte; asks for up to `wanted`.
    pub(crate) fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<usize, Cut>> {
        self.poll_room_of(cx, 1, wanted)
    }

    /// As [`Stream::poll_room`], for at least `least` bytes.
    pub(crate) fn poll_room_of(
        &mut self,
        cx: &mut Context<'_>,
        least: usize,
        wanted: usize,
    ) -> Poll<Result<usize, Cut>> {
        loop {
            let room = self.send.capacity();
            if room >= least {
                return Poll::Ready(Ok(room));
            }
            self.send.reserve_capacity(wanted);
            match self.send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(cut_by(&error))),
                Poll::Ready(None) => {
                    return Poll::Ready(Err(match self.poll_cut(cx) {
                        Poll::Ready(cut) => cut,
                        Poll::Pending => Cut::Link,
                    }));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Queues bytes; `end` is the FIN.
    pub(crate) fn send(&mut self, data: Bytes, end: bool) -> Result<(), Cut> {
        let chunk = self.in_flight.chunk(data);
        self.send.send_data(chunk, end).map_err(|_| Cut::Link)
    }

    /// Ready when the stream was reset or its connection ended.
    pub(crate) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        self.send.poll_reset(cx).map(|result| match result {
            Ok(reason) => cut_for(Some(reason)),
            Err(error) => cut_by(&error),
        })
    }

    /// Resets the flow. What is queued is lost: wait for [`InFlight::empty`] before.
    pub(crate) fn reset(&mut self) {
        self.send.send_reset(Reason::CONNECT_ERROR);
    }

    /// Ends the flow of a half that leaves. Its direction has ended and is delivered; it no longer
    /// reads the other one.
    pub(crate) fn leave(&mut self) {
        self.send.send_reset(Reason::NO_ERROR);
    }

    /// The next bytes; `None` is the FIN.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Cut>> {
        self.recv.poll_data(cx).map(|item| match item {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(error)) => Err(cut_by(&error)),
        })
    }

    /// Allows the other half to send `bytes` more.
    pub(crate) fn release(&mut self, bytes: usize) {
        // Fails only when more is released than came, and the relay counts what came.
        let _ = self.recv.flow_control().release_capacity(bytes);
    }
}
