//! TCP flows: from a captured connection to a flow on the link.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use odyn_link::drain::Guard;
use odyn_policy::Protocol;
use odyn_proto::{Dialled, OrigDst};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Egress;
use crate::audit::{End, Record, Refusal};
use crate::capture::sockets::{is_exhaustion, original_destination};
use crate::capture::tun::{Accepted, Serving};
use crate::egress::flow;
use crate::egress::flow::{AllowedFlow, AppStream, Captured, RefusalCause};

/// Pause after an accept that failed for lack of descriptors or memory.
const EXHAUSTED_INTERVAL: Duration = Duration::from_millis(50);

/// Accepts redirected connections until `stop`. Then takes those that the kernel has completed
/// already, so that none is lost.
pub(super) async fn accept(listener: TcpListener, egress: Arc<Egress>, stop: CancellationToken) {
    // Delays the end of the drain until the backlog is empty.
    let _handover = egress.link.handover();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => accept_now(&listener),
            accepted = listener.accept() => accepted.map(|(stream, _)| stream),
        };
        match accepted {
            Ok(stream) => {
                let handover = egress.link.handover();
                egress.carry(redirected(stream, Arc::clone(&egress), handover));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if is_exhaustion(&error) => {
                tracing::warn!(%error, "cannot accept a connection now; trying again");
                tokio::time::sleep(EXHAUSTED_INTERVAL).await;
            }
            // The app closed the connection before it was accepted.
            Err(error) => tracing::debug!(%error, "accept"),
        }
    }
}

/// Accepts by a system call: the runtime may not have seen the latest connection yet.
fn accept_now(listener: &TcpListener) -> io::Result<TcpStream> {
    let (socket, _) = SockRef::from(listener).accept()?;
    socket.set_nonblocking(true)?;
    TcpStream::from_std(socket.into())
}

/// A TCP connection of the app that the kernel has completed.
pub(super) struct Connected {
    stream: TcpStream,
    original: OrigDst,
    /// Keeps the flow in the table of a TUN capture.
    serving: Option<Serving>,
}

impl Connected {
    /// A connection that nftables redirected.
    fn redirected(stream: TcpStream) -> Result<Self, TcpStream> {
        match original_destination(&stream) {
            Ok(original) => Ok(Self {
                stream,
                original,
                serving: None,
            }),
            Err(_) => Err(stream),
        }
    }

    /// A connection whose SYN a TUN capture held until now.
    pub(super) fn held(Accepted { stream, serving }: Accepted, original: OrigDst) -> Self {
        Self {
            stream,
            original,
            serving: Some(serving),
        }
    }

    /// The app's socket, to look at its first bytes.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl Captured for Connected {
    const PROTOCOL: Protocol = Protocol::Tcp;

    fn original(&self) -> OrigDst {
        self.original
    }

    /// Resets the connection, as the app's connect() has returned already.
    fn refuse(self, _: RefusalCause, handover: Guard) -> impl Future<Output = ()> + Send + 'static {
        reset(&self.stream);
        drop(self);
        async move { drop(handover) }
    }

    async fn into_stream(self) -> AppStream<Self> {
        AppStream::Connected(self)
    }

    async fn carry(self, allowed: AllowedFlow<'_>) {
        let AllowedFlow {
            admitted,
            mut record,
            egress,
            handover,
        } = allowed;
        let opened = match egress.link.tcp_for(&admitted.permit, &self.stream).await {
            Ok(opened) => opened,
            Err(error) => return flow::not_opened(self, &error, record, handover).await,
        };
        record.dialled(opened.dialled.map(Dialled));
        // From here on the link knows the flow and delays the end of the drain itself.
        drop(handover);
        let end = odyn_link::relay(self.stream, opened.flow, record.counters()).await;
        drop(self.serving);
        finish(record, end);
    }
}

async fn redirected(stream: TcpStream, egress: Arc<Egress>, handover: Guard) {
    match Connected::redirected(stream) {
        Ok(connected) => flow::run(connected, &egress, handover).await,
        Err(stream) => {
            // The policy needs a destination: without one the flow is refused (fail closed).
            let local = stream
                .local_addr()
                .map_or_else(|_| "unknown".into(), |a| a.to_string());
            egress
                .audit
                .flow("tcp", local)
                .denied(Refusal::of("no-destination"));
            reset(&stream);
        }
    }
}

/// Closes the record of a relayed flow.
pub(crate) fn finish(mut record: Record, end: odyn_link::End) {
    let end = match end {
        odyn_link::End::Closed => End::Closed,
        odyn_link::End::ResetBySocket => End::ResetByApp,
        odyn_link::End::ResetByPeer => End::ResetByPeer,
        odyn_link::End::LinkLost => End::LinkLost,
        odyn_link::End::Cut { undelivered } => {
            record.undelivered(undelivered);
            End::Cut
        }
    };
    record.ended(end);
}

/// Makes this socket's close a reset, which the app sees as ECONNRESET at once.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
