//! Moves datagrams between a connected UDP socket and a flow of the link.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use odyn_udp_batch::{Batched, Received, Taken};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::yield_now;
use tracing::debug;

use crate::error::DatagramError;
use crate::flow::datagrams::Datagrams;
use crate::flow::end::End;
use crate::sockets::counters::Counters;

/// Batches that the relay moves in one poll.
const POLL_BUDGET: u32 = 4;

/// Moves datagrams both ways until the flow ends. It ends when the other half ends it, when either
/// side gives up, or when the destination answers with an ICMP error, which is passed on.
///
/// `counters` counts payload: up is from the socket, down is to it.
pub async fn relay_udp(socket: UdpSocket, flow: Datagrams, counters: Arc<Counters>) -> End {
    relay_udp_until(socket, flow, counters, std::future::pending()).await
}

/// As [`relay_udp`], with an end from this side. When `leave` is ready, the relay asks the other
/// half to end the flow, and sends on what comes until then.
pub(crate) async fn relay_udp_until(
    socket: UdpSocket,
    flow: Datagrams,
    counters: Arc<Counters>,
    leave: impl Future<Output = ()>,
) -> End {
    let (mut sender, mut receiver) = flow.split();
    let socket = Batched::new(socket);
    let mut batch = Vec::new();
    let mut leaving = false;
    let mut turn = 0;
    tokio::pin!(leave);
    loop {
        turn = (turn + 1) % POLL_BUDGET;
        if turn == 0 {
            yield_now().await;
        }
        tokio::select! {
            () = &mut leave, if !leaving => {
                leaving = true;
                sender.end();
            }
            // An ICMP error alone does not make a socket readable.
            ready = socket.socket().ready(Interest::READABLE | Interest::ERROR), if !leaving => {
                let Ok(ready) = ready else { return End::ResetBySocket };
                match socket_to_flow(&socket, |datagrams| sender.send_batch(datagrams), &counters) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return end_of(&error),
                    Err(error) if is_refusal(&error) => {
                        sender.refuse();
                        return End::ResetBySocket;
                    }
                    Err(_) => {}
                }
                if ready.is_error() && is_refused(socket.socket()) {
                    sender.refuse();
                    return End::ResetBySocket;
                }
            }
            received = receiver.recv_batch(&mut batch) => match received {
                Ok(true) => {
                    if send_batch(&socket, &batch, &counters).await.is_err() {
                        sender.refuse();
                        return End::ResetBySocket;
                    }
                    // An idle flow has no buffer.
                    batch = Vec::new();
                }
                Ok(false) => return End::Closed,
                Err(error) => return end_of(&error),
            },
        }
    }
}

/// A UDP socket that receives and sends several datagrams by one system call.
pub trait DatagramSocket {
    /// Gives the datagrams that have come to `take`.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is none, or an error of the socket.
    fn try_receive<R>(&self, take: impl FnOnce(Received<'_>) -> R) -> io::Result<R>;

    /// Sends the first of some datagrams, one at least.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is no room, or an error of the socket.
    fn try_send(&self, datagrams: &[Bytes]) -> io::Result<Taken>;
}

impl DatagramSocket for Batched {
    fn try_receive<R>(&self, take: impl FnOnce(Received<'_>) -> R) -> io::Result<R> {
        Batched::try_receive(self, take)
    }

    fn try_send(&self, datagrams: &[Bytes]) -> io::Result<Taken> {
        Batched::try_send(self, datagrams)
    }
}

/// Moves up to four batches that have come to a socket to the flow, by `send`.
///
/// # Errors
/// The outer error is the socket's, the inner one the flow's.
pub fn socket_to_flow(
    socket: &impl DatagramSocket,
    mut send: impl FnMut(Received<'_>) -> Result<Taken, DatagramError>,
    counters: &Counters,
) -> io::Result<Result<(), DatagramError>> {
    for _ in 0..POLL_BUDGET {
        let sent = match socket.try_receive(&mut send) {
            Ok(Ok(sent)) => sent,
            Ok(Err(error)) => return Ok(Err(error)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        counters.up.fetch_add(sent.bytes, Ordering::Relaxed);
    }
    Ok(Ok(()))
}

/// Sends a batch on until the socket has no room. Returns how many datagrams have left the batch:
/// sent, or lost because they are too long for the path.
///
/// # Errors
/// An error for which `is_refusal` says that no datagram of the flow arrives any more.
pub fn flow_to_socket(
    socket: &impl DatagramSocket,
    batch: &[Bytes],
    counters: &Counters,
    is_refusal: impl Fn(&io::Error) -> bool,
) -> io::Result<usize> {
    let mut passed = 0;
    while let Some(rest) = batch.get(passed..).filter(|rest| !rest.is_empty()) {
        passed += match socket.try_send(rest) {
            Ok(sent) => {
                counters.down.fetch_add(sent.bytes, Ordering::Relaxed);
                sent.datagrams
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if is_refusal(&error) => return Err(error),
            Err(error) => {
                debug!(%error, "a datagram is lost");
                1
            }
        };
    }
    Ok(passed)
}

/// Sends a batch on, and waits for room. An error is an ICMP error.
async fn send_batch(socket: &Batched, batch: &[Bytes], counters: &Counters) -> io::Result<()> {
    let mut rest = batch;
    loop {
        let passed = flow_to_socket(socket, rest, counters, is_refusal)?;
        rest = rest.get(passed..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        socket.socket().writable().await?;
    }
}

/// Whether the socket has an ICMP error; reading it removes it.
fn is_refused(socket: &UdpSocket) -> bool {
    // No other call clears this readiness.
    let _ = socket.try_io(Interest::ERROR, || {
        Err::<(), _>(io::ErrorKind::WouldBlock.into())
    });
    matches!(socket.take_error(), Ok(Some(error)) if is_refusal(&error))
}

/// Whether an error is an ICMP error: datagrams do not arrive.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionRefused | K::HostUnreachable | K::NetworkUnreachable | K::PermissionDenied
    )
}

fn end_of(error: &DatagramError) -> End {
    match error {
        DatagramError::LinkLost => End::LinkLost,
        DatagramError::Refused | DatagramError::Reset => End::ResetByPeer,
        DatagramError::TooLong(_) | DatagramError::Capsule(_) => End::ResetByPeer,
    }
}
