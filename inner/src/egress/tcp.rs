//! TCP: from a redirected connection to a flow on the link.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use odyn_link::DrainGuard;
use odyn_policy::{Protocol, Reason};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::sni::Hello;
use super::{Egress, sni};
use crate::audit::{End, Record, Refusal};
use crate::capture::sockets::{is_exhaustion, original_destination};
use crate::egress::authorize::{Admitted, Rejected, end_of_open};

/// Pause after an accept that failed for lack of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Accepts redirected connections until `stop`, and then those that the kernel has completed
/// already, so that none of them is lost.
pub(super) async fn accept(listener: TcpListener, egress: Arc<Egress>, stop: CancellationToken) {
    // Until the backlog is empty.
    let _busy = egress.link.busy();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => accept_now(&listener),
            accepted = listener.accept() => accepted.map(|(stream, _)| stream),
        };
        match accepted {
            Ok(stream) => {
                let busy = egress.link.busy();
                egress.carry(flow(stream, Arc::clone(&egress), busy));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if is_exhaustion(&error) => {
                tracing::warn!(%error, "no connection can be accepted at the moment");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // The connection was gone before it was accepted.
            Err(error) => tracing::debug!(%error, "accept"),
        }
    }
}

/// Asks the kernel, not the runtime, which may not have heard yet of a connection that is there.
fn accept_now(listener: &TcpListener) -> io::Result<TcpStream> {
    let (socket, _) = SockRef::from(listener).accept()?;
    socket.set_nonblocking(true)?;
    TcpStream::from_std(socket.into())
}

async fn flow(stream: TcpStream, egress: Arc<Egress>, busy: DrainGuard) {
    let Ok(destination) = original_destination(&stream) else {
        // Without a destination there is nothing to judge: fail closed.
        let local = stream
            .local_addr()
            .map_or_else(|_| "unknown".into(), |a| a.to_string());
        egress
            .audit
            .flow("tcp", local)
            .denied(Refusal::of("no-destination"));
        reset(&stream);
        return;
    };
    let mut record = egress.audit.flow("tcp", destination);
    match egress
        .authorizer
        .authorize(destination, Protocol::Tcp, &mut record)
        .await
    {
        Ok(passed) => carry(stream, destination, passed, record, &egress, busy).await,
        Err(stopped) => {
            // First the program's answer, then our paper work.
            reset(&stream);
            drop(stream);
            match stopped {
                Rejected::Denied(refusal) => record.denied(refusal),
                Rejected::Unresolved => record.ended(End::Unresolved),
            }
        }
    }
}

pub(super) async fn carry(
    stream: TcpStream,
    destination: SocketAddr,
    passed: Admitted,
    mut record: Record,
    egress: &Egress,
    busy: DrainGuard,
) {
    if passed.permit.sni_required() && !has_expected_sni(&stream, &passed).await {
        reset(&stream);
        let rule = passed.permit.rule();
        record.denied(Refusal {
            reason: Reason::Sni.as_str(),
            rule: rule.map(|rule| rule.text().into()),
            line: rule.map(odyn_policy::RuleRef::line),
        });
        return;
    }
    let opened = match egress.link.tcp_for(&passed.permit, &stream).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(%destination, %error, flow = record.id(), "not opened");
            reset(&stream);
            record.ended(end_of_open(&error));
            return;
        }
    };
    record.dialled(opened.dialled);
    // From here on the flow says itself when it has nothing more to hand over.
    drop(busy);
    let end = odyn_link::relay(stream, opened.flow, record.counters()).await;
    finish(record, end);
}

async fn has_expected_sni(stream: &TcpStream, passed: &Admitted) -> bool {
    let Some(expected) = &passed.name else {
        return false;
    };
    matches!(sni::peek(stream).await, Ok(Hello::Name(name)) if name == expected.as_str())
}

/// Closes the record of a flow that was relayed.
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

/// Makes the close of this socket a reset, which the program sees as ECONNRESET at once.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
