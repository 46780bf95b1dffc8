//! DNS over UDP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use odyn_udp_batch::Segments;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};

use crate::name_policy::{NamePolicy, QueryTransport};
use crate::resolver::{QueryStep, Resolver};
use crate::upstream::Upstream;

/// Longest query in bytes. The kernel cuts a longer datagram, which is then malformed.
const MAX_QUERY: usize = 4096;
/// Most queries that are answered together.
///
/// A client with several queries in flight gets several answers by one system call, and wakes once.
const POLL_BUDGET: usize = 32;

/// Answers queries from `socket` until it fails or the future is dropped.
///
/// Queries that need not wait are answered in this task. The others wait in tasks of their own, at
/// most [`Config::udp_inflight`](crate::Config::udp_inflight); further ones fail immediately.
///
/// # Errors
/// The socket cannot be used any more. Errors about single datagrams are ignored.
pub async fn serve_udp<G: NamePolicy, U: Upstream>(
    socket: UdpSocket,
    resolver: Resolver<G, U>,
) -> io::Result<()> {
    let socket = Arc::new(AnswerSocket {
        segments: Segments::of(&socket),
        socket,
    });
    let waiting = Arc::new(Semaphore::new(
        resolver.config().udp_inflight.min(Semaphore::MAX_PERMITS),
    ));
    let mut tasks = JoinSet::new();
    let mut buffer = [0; MAX_QUERY];
    let mut answers = Vec::with_capacity(POLL_BUDGET);
    loop {
        tokio::select! {
            ready = socket.socket.readable() => ready?,
            Some(_) = tasks.join_next() => continue,
        }
        for _ in 0..POLL_BUDGET {
            let (length, client) = match socket.socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if about_one_datagram(&error) => continue,
                Err(error) => return Err(error),
            };
            debug_assert!(length <= buffer.len());
            let query = buffer.get(..length).unwrap_or_default();
            match resolver.step(query, client, QueryTransport::Udp) {
                QueryStep::Drop => {}
                QueryStep::Reply(reply) => answers.push(UdpAnswer { client, reply }),
                QueryStep::Wait(reply) => {
                    let Ok(permit) = Arc::clone(&waiting).try_acquire_owned() else {
                        let reply = reply.give_up();
                        answers.push(UdpAnswer { client, reply });
                        continue;
                    };
                    let socket = Arc::clone(&socket);
                    tasks.spawn(async move {
                        let reply = reply.answer().await;
                        socket.send(&[UdpAnswer { client, reply }]).await;
                        drop(permit);
                    });
                }
            }
        }
        let more = answers.len() == POLL_BUDGET;
        // Sorted by client, in the order of its queries, so that they can be sent together.
        answers.sort_by_key(|answer| answer.client);
        for answers in answers.chunk_by(|one, next| one.client == next.client) {
            socket.send(answers).await;
        }
        answers.clear();
        if more {
            yield_now().await;
        }
    }
}

struct UdpAnswer {
    client: SocketAddr,
    reply: Vec<u8>,
}

impl AsRef<[u8]> for UdpAnswer {
    fn as_ref(&self) -> &[u8] {
        &self.reply
    }
}

struct AnswerSocket {
    socket: UdpSocket,
    segments: Segments,
}

impl AnswerSocket {
    /// Sends answers for one client.
    async fn send(&self, answers: &[UdpAnswer]) {
        let mut rest = answers;
        while let Some(UdpAnswer { client, .. }) = rest.first() {
            let passed = match self.segments.try_send(&self.socket, rest, Some(*client)) {
                Ok(sent) => sent.datagrams,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.socket.writable().await {
                        Ok(()) => 0,
                        Err(_) => return,
                    }
                }
                // The client or its network may be gone.
                Err(error) => {
                    tracing::debug!(%client, %error, "answer not sent");
                    1
                }
            };
            rest = rest.get(passed..).unwrap_or_default();
        }
    }
}

/// Whether the kernel reports an error about an earlier answer to some client.
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
