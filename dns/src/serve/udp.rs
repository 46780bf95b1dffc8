//! DNS over datagrams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use odyn_udp_batch::Segments;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};

use crate::name_policy::{NamePolicy, Transport};
use crate::resolver::{QueryStep, Resolver};
use crate::upstream::Upstream;

/// Queries are small; a longer datagram is cut by the kernel and answered as the malformed
/// message it then is.
const LONGEST_QUERY: usize = 4096;
/// Queries that are answered together when so many are there: a client that does not wait for each
/// answer gets several by one system call, and is woken once.
const TURN: usize = 32;

/// Answers queries from `socket` until it breaks or the future is dropped.
///
/// Queries that need no waiting are answered on the spot. The others wait in tasks of their own,
/// [`Config::udp_inflight`](crate::Config::udp_inflight) at most; past that they fail at once.
///
/// # Errors
/// Whatever makes the socket unusable. Errors about single datagrams are passed over.
pub async fn serve_udp<G: NamePolicy, U: Upstream>(
    socket: UdpSocket,
    resolver: Resolver<G, U>,
) -> io::Result<()> {
    let socket = Arc::new(Socket {
        segments: Segments::of(&socket),
        socket,
    });
    let waiting = Arc::new(Semaphore::new(
        resolver.config().udp_inflight.min(Semaphore::MAX_PERMITS),
    ));
    let mut tasks = JoinSet::new();
    let mut buffer = [0; LONGEST_QUERY];
    let mut answers = Vec::with_capacity(TURN);
    loop {
        tokio::select! {
            ready = socket.socket.readable() => ready?,
            Some(_) = tasks.join_next() => continue,
        }
        for _ in 0..TURN {
            let (length, client) = match socket.socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if about_one_datagram(&error) => continue,
                Err(error) => return Err(error),
            };
            let query = buffer.get(..length).unwrap_or_default();
            match resolver.step(query, client, Transport::Udp) {
                QueryStep::Drop => {}
                QueryStep::Reply(reply) => answers.push(Answer { client, reply }),
                QueryStep::Wait(reply) => {
                    let Ok(permit) = Arc::clone(&waiting).try_acquire_owned() else {
                        let reply = reply.give_up();
                        answers.push(Answer { client, reply });
                        continue;
                    };
                    let socket = Arc::clone(&socket);
                    tasks.spawn(async move {
                        let reply = reply.answer().await;
                        socket.send(&[Answer { client, reply }]).await;
                        drop(permit);
                    });
                }
            }
        }
        let more = answers.len() == TURN;
        // Those of one client one after the other, in their order, so that they can go together.
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

struct Answer {
    client: SocketAddr,
    reply: Vec<u8>,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.reply
    }
}

struct Socket {
    socket: UdpSocket,
    segments: Segments,
}

impl Socket {
    /// Sends answers for one client.
    async fn send(&self, answers: &[Answer]) {
        let mut rest = answers;
        while let Some(Answer { client, .. }) = rest.first() {
            let passed = match self.segments.try_send(&self.socket, rest, Some(*client)) {
                Ok(sent) => sent.datagrams,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.socket.writable().await {
                        Ok(()) => 0,
                        Err(_) => return,
                    }
                }
                // The client may be gone, or its network: that is its own affair.
                Err(error) => {
                    tracing::debug!(%client, %error, "answer not sent");
                    1
                }
            };
            rest = rest.get(passed..).unwrap_or_default();
        }
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
