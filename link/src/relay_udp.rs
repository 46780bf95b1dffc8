//! Moves datagrams between a connected UDP socket and a flow of the link.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use tokio::net::UdpSocket;

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
    let (mut sender, mut receiver) = flow.split();
    let mut buf = Vec::new();
    loop {
        tokio::select! {
            ready = socket.readable() => {
                if ready.is_err() {
                    return End::ResetBySocket;
                }
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
