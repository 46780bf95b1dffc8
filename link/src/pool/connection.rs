//! One connection on which we open the streams: from its handshake to its last flow.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use h2::client::SendRequest;
use h2::{PingPong, client};
use tokio::sync::{oneshot, watch};
use tracing::debug;

use super::{Connection, Pool, Shared};
use crate::chunk::Chunk;
use crate::config::{ClientConfig, MAX_HEADER_LIST, MAX_WINDOW, RESET_MEMORY, RESET_STREAMS};
use crate::cork::Cork;
use crate::delivery::Registry;
use crate::drain::{Phase, Step};
use crate::error::LinkError;
use crate::flush;
use crate::flush::Verdict;
use crate::keepalive::{Pulse, keepalive};
use crate::losses::Generation;
use crate::transport::Transport;

/// A connection on which HTTP/2 has started.
pub(crate) struct Opened {
    pub(crate) requests: SendRequest<Chunk>,
    pub(crate) driver: client::Connection<Transport, Chunk>,
    pub(crate) pings: PingPong,
    cork: Cork,
}

/// Why a connection takes no more flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leave {
    /// The other half said so (GOAWAY without an error).
    Asked,
    /// We are closing.
    Closing,
    /// It failed, or was closed without a word.
    Lost(String),
}

impl std::fmt::Display for Leave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Asked => "the other half takes no more flows",
            Self::Closing => "closing",
            Self::Lost(reason) => reason,
        })
    }
}

/// Starts HTTP/2 on a transport.
///
/// # Errors
/// The transport failed.
pub(crate) async fn handshake(
    transport: Transport,
    config: &ClientConfig,
) -> Result<Opened, LinkError> {
    let tuning = &config.tuning;
    let cork = transport.cork();
    let (requests, mut driver) = client::Builder::new()
        .initial_window_size(tuning.window())
        .initial_connection_window_size(MAX_WINDOW)
        .max_frame_size(tuning.frame())
        .max_send_buffer_size(tuning.send_buffer)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(Some(RESET_STREAMS))
        .reset_stream_duration(RESET_MEMORY)
        // The other half opens no streams.
        .enable_push(false)
        .max_concurrent_streams(0)
        .handshake::<_, Chunk>(transport)
        .await?;
    let pings = driver
        .ping_pong()
        .ok_or(LinkError::Protocol("h2 gave no handle for its PINGs"))?;
    Ok(Opened {
        requests,
        driver,
        pings,
        cork,
    })
}

/// Starts HTTP/2 and waits for a sign of life of the host.
///
/// # Errors
/// The transport failed, or the host is no such host.
pub(super) async fn greet(
    transport: Transport,
    config: &ClientConfig,
) -> Result<Opened, LinkError> {
    let mut opened = handshake(transport, config).await?;
    // A transport that connects says nothing about the other half: vsock proxies take every
    // connection. Its answer also means that its SETTINGS are known.
    let pong = opened.pings.ping(h2::Ping::opaque());
    tokio::select! {
        pong = pong => { pong?; }
        ended = &mut opened.driver => {
            ended?;
            return Err(LinkError::Protocol("the host closed the connection at once"));
        }
    }
    if !opened.requests.is_extended_connect_protocol_enabled() {
        return Err(LinkError::Protocol(
            "the host does not offer extended CONNECT",
        ));
    }
    Ok(opened)
}

/// Publishes a connection and drives it until it takes no more flows. Says why.
///
/// Its flows go on until they end: a task of the pool drives it until then.
pub(crate) async fn drive(
    pool: &Arc<Pool>,
    opened: Opened,
    registry: Arc<Registry>,
    generation: Generation,
) -> Leave {
    let (left, leave) = oneshot::channel();
    let connection = pool.publish(opened.requests.clone(), registry, generation);
    let shared = Arc::clone(&connection.shared);
    let place = Place {
        pool: Arc::clone(pool),
        connection: Some(connection),
        left: Some(left),
    };
    let crew = shared.crew.clone();
    pool.tasks.spawn(crew.lead(run(place, shared, opened)));
    leave
        .await
        .unwrap_or_else(|_| Leave::Lost("its task failed".into()))
}

/// A connection's place in its pool.
struct Place {
    pool: Arc<Pool>,
    connection: Option<Connection>,
    left: Option<oneshot::Sender<Leave>>,
}

impl Place {
    /// Opens no more flows on it. The first reason counts.
    fn leave(&mut self, reason: Leave) {
        let (Some(connection), Some(left)) = (self.connection.take(), self.left.take()) else {
            return debug!(%reason, "a connection that left the pool");
        };
        if matches!(reason, Leave::Lost(_)) {
            self.pool.generations.lost(connection.generation);
        }
        self.pool.retire(&connection);
        self.pool.set_down_if_empty(&reason.to_string());
        let _ = left.send(reason);
    }
}

/// Drives a connection until it ends.
async fn run(mut place: Place, shared: Arc<Shared>, opened: Opened) {
    let Opened {
        requests,
        mut driver,
        pings,
        cork,
    } = opened;
    let pool = Arc::clone(&place.pool);
    let (closing, cut) = (pool.closing.clone(), pool.cut.clone());
    // Keeps the connection open until the host has confirmed all that we sent.
    let mut watched = Some(requests);
    let last = async {
        pool.closing.cancelled().await;
        pool.flows.none().await;
    };
    let mut pulse = std::pin::pin!(keepalive(pings, &pool.config.tuning, last));
    let mut beats = true;
    let mut steps = pool.drain.watch();
    let mut asked = Phase::Draining;
    let mut flush: Option<Pin<Box<dyn Future<Output = Verdict> + Send>>> = None;
    let reason = loop {
        let progress = poll_fn(|cx| {
            let ended = cork.turn(cx, |cx| Pin::new(&mut driver).poll(cx));
            // GOAWAY shows only on the handle for new streams.
            let ready = watched.as_mut().map(|requests| requests.poll_ready(cx));
            match (ended, ready) {
                (Poll::Ready(_), Some(Poll::Ready(Err(error)))) if is_asked(&error) => {
                    Poll::Ready(Progress::Ended(Leave::Asked))
                }
                (Poll::Ready(Ok(())), _) => {
                    let reason = "closed by the other half".into();
                    Poll::Ready(Progress::Ended(Leave::Lost(reason)))
                }
                (Poll::Ready(Err(error)), _) => {
                    Poll::Ready(Progress::Ended(Leave::Lost(error.to_string())))
                }
                (Poll::Pending, Some(Poll::Ready(Err(error)))) => {
                    Poll::Ready(Progress::Retired(if is_asked(&error) {
                        Leave::Asked
                    } else {
                        Leave::Lost(error.to_string())
                    }))
                }
                (Poll::Pending, _) => Poll::Pending,
            }
        });
        tokio::select! {
            biased;
            progress = progress => match progress {
                Progress::Ended(leave) => break leave,
                Progress::Retired(leave) => {
                    // The handle would keep the connection open behind its last flow.
                    watched = None;
                    place.leave(leave);
                }
            },
            pulse = &mut pulse, if beats => match pulse {
                Pulse::Dead(silence) => break Leave::Lost(LinkError::Dead(silence).to_string()),
                Pulse::Confirmed => {
                    watched = None;
                    beats = false;
                    place.leave(Leave::Closing);
                }
            },
            step = next_flush(&mut steps, asked) => {
                asked = step.phase;
                flush = Some(Box::pin(flush_all(watched.clone(), Arc::clone(&shared), step)));
            }
            verdict = some(&mut flush) => {
                flush = None;
                shared.verdict.set(verdict);
            }
            () = closing.cancelled(), if place.left.is_some() => place.leave(Leave::Closing),
            () = cut.cancelled() => break Leave::Closing,
        }
    };
    shared.verdict.set(match reason {
        Leave::Closing => Verdict::Unconfirmed,
        Leave::Asked | Leave::Lost(_) => Verdict::Lost,
    });
    place.leave(reason);
}

enum Progress {
    /// The connection is gone.
    Ended(Leave),
    /// It takes no more flows, and those that are open go on.
    Retired(Leave),
}

/// Whether the other half wants no more flows (GOAWAY without an error).
fn is_asked(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

/// The next phase after `asked` in which the host half has to be asked what is delivered.
async fn next_flush(steps: &mut watch::Receiver<Step>, asked: Phase) -> Step {
    let later = |step: &Step| asked < step.phase && step.phase < Phase::Done;
    // The guard of what is seen must be gone before the next wait.
    let seen = steps.wait_for(later).await.map(|step| *step);
    match seen {
        Ok(step) => step,
        Err(_) => std::future::pending().await,
    }
}

/// What of this connection's flows is delivered.
async fn flush_all(
    requests: Option<SendRequest<Chunk>>,
    shared: Arc<Shared>,
    step: Step,
) -> Verdict {
    if !shared.used.load(Ordering::Relaxed) {
        return Verdict::delivered();
    }
    match requests {
        Some(requests) => flush::ask(requests, step).await,
        // The host half is leaving, too: it opens no streams, and delivers by itself.
        None => Verdict::HandedOver,
    }
}

/// What a future that may be there gives.
async fn some<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
