//! Moves datagrams between a connected UDP socket and a flow of the link.

use std::{
    future::Future,
    io,
    sync::{Arc, atomic::Ordering},
};

use tokio::{io::Interest, net::UdpSocket};

use crate::{
    datagrams::Datagrams,
    error::DatagramError,
    relay::{Counters, End},
    wire::capsule::MAX_DATAGRAM,
};

/// Moves datagrams both ways until the other half ends the flow, either side gives up, or the
/// destination answers with an ICMP error, which is passed on.
///
/// `counters` counts payload: up from the socket, down to it.
pub async fn relay_udp(socket: UdpSocket, flow: Datagrams, counters: Arc<Counters>) -> End {
    relay_udp_until(socket, flow, counters, std::future::pending()).await
}

/// As [`relay_udp`]; when `leave` is ready, the other half is asked to end the flow, and what it
/// sends until then is sent on.
pub(crate) async fn relay_udp_until(
    socket: UdpSocket,
    flow: Datagrams,
    counters: Arc<Counters>,
    leave: impl Future<Output = ()>,
) -> End {
    let (mut sender, mut receiver) = flow.split();
    let mut buf = Vec::new();
    let mut leaving = false;
    tokio::pin!(leave);
    loop {
        tokio::select! {
            () = &mut leave, if !leaving => {
                leaving = true;
                sender.end();
            }
            // An ICMP error alone does not make a socket readable.
            ready = socket.ready(Interest::READABLE | Interest::ERROR), if !leaving => {
                let Ok(ready) = ready else { return End::ResetBySocket };
                // The buffer is there while datagrams come, and not while the flow is idle.
                buf.reserve(MAX_DATAGRAM);
                loop {
                    buf.clear();
                    match socket.try_recv_buf(&mut buf) {
                        Ok(_) => match sender.send(&buf) {
                            Ok(true) => {
                                counters.up.fetch_add(buf.len() as u64, Ordering::Relaxed);
                            }
                            Ok(false) => {}
                            Err(error) => return end_of(&error),
                        },
                        Err(error) if is_passing(&error) => break,
                        Err(_) => {
                            sender.refuse();
                            return End::ResetBySocket;
                        }
                    }
                }
                buf = Vec::new();
                if ready.is_error() && is_refused(&socket) {
                    sender.refuse();
                    return End::ResetBySocket;
                }
            }
            received = receiver.recv() => match received {
                Ok(Some(datagram)) => match socket.send(&datagram).await {
                    Ok(_) => {
                        counters.down.fetch_add(datagram.len() as u64, Ordering::Relaxed);
                    }
                    Err(error) if is_refusal(&error) => {
                        sender.refuse();
                        return End::ResetBySocket;
                    }
                    // Too long for the path, or a full queue: datagrams get lost.
                    Err(_) => {}
                },
                Ok(None) => return End::Closed,
                Err(error) => return end_of(&error),
            },
        }
    }
}

/// Whether an ICMP error is waiting; it is taken away.
fn is_refused(socket: &UdpSocket) -> bool {
    // Nothing else clears this readiness.
    let _ = socket.try_io(Interest::ERROR, || {
        Err::<(), _>(io::ErrorKind::WouldBlock.into())
    });
    matches!(socket.take_error(), Ok(Some(error)) if is_refusal(&error))
}

/// An ICMP error that says that datagrams do not arrive.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(
        error.kind(),
        K::ConnectionRefused | K::HostUnreachable | K::NetworkUnreachable | K::PermissionDenied
    )
}

fn is_passing(error: &io::Error) -> bool {
    !is_refusal(error)
}

fn end_of(error: &DatagramError) -> End {
    match error {
        DatagramError::LinkLost => End::LinkLost,
        DatagramError::Refused | DatagramError::Reset => End::ResetByPeer,
        DatagramError::TooLong(_) | DatagramError::Capsule(_) => End::ResetByPeer,
    }
}
