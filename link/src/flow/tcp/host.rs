//! The relay on the host, which answers for the delivery of a guest's bytes.

use std::future::poll_fn;
use std::task::Poll;

use tokio::time::timeout;

use crate::drain::Watch;
use crate::drain::delivery::{FlowGuard, LINGER};
use crate::drain::flush::acknowledged;
use crate::flow::end::End;
use crate::flow::local_stream::LocalStream;
use crate::flow::stream::Cut;
use crate::flow::tcp::{MovingFlow, RelayDone, RelayTurn, TcpFlow};

/// What the relay on the host needs.
#[derive(Debug)]
pub(crate) struct HostSide {
    pub(crate) flow_guard: FlowGuard,
    /// The host's drain.
    pub(crate) drain: Watch,
}

pub(super) async fn relay<L: LocalStream>(
    mut flow: Box<TcpFlow<L>>,
    side: HostSide,
) -> RelayTurn<L, HostSide> {
    // The kernel closes the sockets of a killed process with a FIN, and a stream that was cut would
    // look like a whole one: until both directions have ended, a close is a reset.
    flow.local.reset_on_close();
    let whole = async {
        let result = poll_fn(|cx| {
            let result = flow.poll(cx);
            flow.note(&side.flow_guard);
            result
        })
        .await;
        match result {
            Ok(RelayDone::Moves(to)) => Err(to),
            Ok(RelayDone::Closed) => Ok(flow.end(Ok(()), &side).await),
            Err(cut) => Ok(flow.end(Err(cut), &side).await),
        }
    };
    let ended = tokio::select! {
        biased;
        end = whole => Some(end),
        () = side.drain.forced() => None,
    };
    let ended = match ended.transpose() {
        Ok(ended) => ended,
        Err(to) => {
            return RelayTurn::Moves(Box::new(MovingFlow { flow, side, to }));
        }
    };
    RelayTurn::Ended(match ended {
        // The connection is closed because the host has no more time.
        Some(End::LinkLost) if side.drain.is_forced() => flow.cut(&side),
        Some(end) => {
            // Bytes that a peer refused by a reset are not undelivered.
            if flow.local.is_connected() {
                side.flow_guard.give_up();
            }
            end
        }
        None => flow.cut(&side),
    })
}

impl<L: LocalStream> TcpFlow<L> {
    fn note(&self, flow_guard: &FlowGuard) {
        let on_lane = self.lane.as_ref().map_or(0, |lane| lane.down_pending());
        let queued = self.down.queued() as u64 + on_lane;
        flow_guard.note(queued, self.down.fin_sent(), self.down.failed());
    }

    async fn end(&mut self, result: Result<(), Cut>, side: &HostSide) -> End {
        match result {
            Ok(()) => {
                // From here on the kernel delivers what is in the socket, even if this process
                // ends.
                self.local.close_in_order();
                let end = self.flush().await;
                self.linger(side).await;
                end
            }
            Err(Cut::Socket) => {
                self.reset_stream().await;
                End::ResetBySocket
            }
            Err(Cut::Peer) => {
                self.reset_socket().await;
                End::ResetByPeer
            }
            Err(Cut::Gone) => {
                poll_fn(|cx| {
                    let written = self.poll_rest(cx);
                    self.note(&side.flow_guard);
                    written
                })
                .await;
                // From here on the kernel delivers what is in the socket, even if this process
                // ends.
                self.local.close_in_order();
                self.linger(side).await;
                End::Closed
            }
            Err(Cut::Link) => {
                self.lose_link().await;
                End::LinkLost
            }
        }
    }

    /// Waits until h2 has sent the last bytes, after both directions have ended.
    async fn flush(&mut self) -> End {
        self.stream.in_flight.empty().await;
        if !self.stream.in_flight.lost() {
            return End::Closed;
        }
        match poll_fn(|cx| Poll::Ready(self.stream.poll_cut(cx))).await {
            Poll::Ready(Cut::Peer) => End::ResetByPeer,
            Poll::Ready(Cut::Gone) => End::Closed,
            _ => End::LinkLost,
        }
    }

    /// Passes on a reset of the socket: the guest gets what was read, then RST_STREAM.
    async fn reset_stream(&mut self) {
        let grace = self.stream.tuning.reset_grace;
        let _ = timeout(grace, poll_fn(|cx| self.poll_handed_on(cx))).await;
        self.stream.reset();
    }

    /// Keeps the socket until its peer has everything, so that a flush gets an answer. A host that
    /// stops leaves this to the kernel, unless its guest waits for the answer.
    async fn linger(&mut self, side: &HostSide) {
        let (flow_guard, local) = (&side.flow_guard, &mut self.local);
        let delivered = move || {
            flow_guard.pending() == 0
                // A socket that was reset keeps its count.
                || !local.is_connected()
                || side.drain.is_draining() && !flow_guard.is_asked()
        };
        let _ = timeout(LINGER, acknowledged(delivered)).await;
    }

    /// Ends a flow for which there is no more time. The peer must see a reset: it must not take a
    /// part for the whole.
    fn cut(mut self, side: &HostSide) -> End {
        if self.down.fin_sent() {
            self.local.close_in_order();
        }
        if self.down.fin_sent() && self.up.ended() {
            // The kernel delivers the rest.
            return End::Closed;
        }
        self.note(&side.flow_guard);
        let undelivered = side.flow_guard.pending();
        side.drain.note_cut(undelivered);
        self.stream.reset();
        End::Cut { undelivered }
    }
}
