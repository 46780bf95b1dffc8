//! One connection on which we open the streams: from its handshake to its last flow.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll};

use h2::{
    PingPong,
    client::{self, SendRequest},
};
use tracing::debug;

use super::Pool;
use crate::{
    chunk::Chunk,
    config::{ClientConfig, MAX_HEADER_LIST, MAX_WINDOW, RESET_MEMORY, RESET_STREAMS},
    error::LinkError,
    keepalive::{Pulse, keepalive},
    transport::Transport,
};

/// A connection on which HTTP/2 has started.
pub(crate) struct Opened {
    pub(crate) requests: SendRequest<Chunk>,
    pub(crate) driver: client::Connection<Transport, Chunk>,
    pub(crate) pings: PingPong,
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
pub(crate) async fn drive(pool: &Arc<Pool>, opened: Opened) -> Leave {
    let Opened {
        requests,
        mut driver,
        pings,
    } = opened;
    let mut watched = Some(requests.clone());
    let connection = pool.publish(requests);
    let mut pulse = Box::pin({
        let pool = Arc::clone(pool);
        async move {
            let last = async {
                pool.closing.cancelled().await;
                pool.flows.none().await;
            };
            keepalive(pings, &pool.config.tuning, last).await
        }
    });

    let progress = poll_fn(|cx| {
        let ended = Pin::new(&mut driver).poll(cx);
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
    let mut beats = true;
    let mut lives = true;
    let leave = tokio::select! {
        biased;
        progress = progress => match progress {
            Progress::Ended(leave) => {
                lives = false;
                leave
            }
            Progress::Retired(leave) => {
                // The handle would keep the connection open behind its last flow.
                watched.take();
                leave
            }
        },
        pulse = &mut pulse => match pulse {
            Pulse::Dead(silence) => {
                lives = false;
                Leave::Lost(LinkError::Dead(silence).to_string())
            }
            Pulse::Confirmed => {
                watched.take();
                beats = false;
                Leave::Closing
            }
        },
        // The handle keeps the connection open until the host has confirmed all that we sent.
        () = pool.closing.cancelled() => Leave::Closing,
    };
    pool.retire(&connection);
    drop(connection);
    pool.set_down_if_empty(&leave.to_string());
    if !lives {
        return leave;
    }
    let cut = pool.cut.clone();
    pool.tasks.spawn(async move {
        loop {
            tokio::select! {
                biased;
                ended = &mut driver => return debug!(?ended, "retired connection ended"),
                pulse = &mut pulse, if beats => match pulse {
                    Pulse::Confirmed => {
                        drop(watched.take());
                        beats = false;
                    }
                    Pulse::Dead(silence) => return debug!(?silence, "retired connection is dead"),
                },
                () = cut.cancelled() => return,
            }
        }
    });
    leave
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
