//! DNS over datagrams.

use std::io;
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::gate::{Gate, Transport};
use crate::resolver::{Resolver, Step};
use crate::upstream::Upstream;

/// Queries are small; a longer datagram is cut by the kernel and answered as the malformed
/// message it then is.
const LONGEST_QUERY: usize = 4096;

/// Answers queries from `socket` until it breaks or the future is dropped.
///
/// Queries that need no waiting are answered on the spot. The others wait in tasks of their own,
/// [`Config::udp_inflight`](crate::Config::udp_inflight) at most; past that they fail at once.
///
/// # Errors
/// Whatever makes the socket unusable. Errors about single datagrams are passed over.
pub async fn serve_udp<G: Gate, U: Upstream>(
    socket: UdpSocket,
    resolver: Resolver<G, U>,
) -> io::Result<()> {
    let socket = Arc::new(socket);
    let waiting = Arc::new(Semaphore::new(
        resolver.config().udp_inflight.min(Semaphore::MAX_PERMITS),
    ));
    let mut tasks = JoinSet::new();
    let mut buffer = [0; LONGEST_QUERY];
    loop {
        let (length, client) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                Err(error) if about_one_datagram(&error) => continue,
                Err(error) => return Err(error),
            },
            Some(_) = tasks.join_next() => continue,
        };
        let query = buffer.get(..length).unwrap_or_default();
        match resolver.step(query, client, Transport::Udp) {
            Step::Drop => {}
            Step::Reply(reply) => send(&socket, &reply, client).await,
            Step::Wait(reply) => {
                let Ok(permit) = Arc::clone(&waiting).try_acquire_owned() else {
                    send(&socket, &reply.give_up(), client).await;
                    continue;
                };
                let socket = Arc::clone(&socket);
                tasks.spawn(async move {
                    send(&socket, &reply.answer().await, client).await;
                    drop(permit);
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], client: std::net::SocketAddr) {
    // The client may be gone, or its network: that is its own affair.
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%client, %error, "answer not sent");
    }
}

/// Errors that the kernel reports on a socket about an earlier answer to someone.
fn about_one_datagram(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::Interrupted
    )
}
