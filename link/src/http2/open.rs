//! A connection on which we open the streams.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use h2::client::SendRequest;
use h2::{PingPong, client};

use crate::config::Tuning;
use crate::error::{LinkError, PeerMisbehaved};
use crate::http2::chunk::Chunk;
use crate::http2::settings::with_settings;
use crate::transport::cork::Cork;
use crate::transport::stream::Transport;

/// A connection on which HTTP/2 has started.
pub(crate) struct OpenedConnection {
    pub(crate) requests: SendRequest<Chunk>,
    pub(crate) driver: ConnectionDriver,
    pub(crate) pings: PingPong,
}

/// Drives a connection and what its transport keeps back.
pub(crate) struct ConnectionDriver {
    pub(crate) connection: client::Connection<Transport, Chunk>,
    cork: Cork,
}

/// Why a connection takes no more flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaveReason {
    /// The other half said so (GOAWAY without an error).
    Asked,
    /// We are closing.
    Closing,
    /// It failed, or was closed without a word.
    Lost(String),
}

impl std::fmt::Display for LeaveReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Asked => "the other half takes no more flows",
            Self::Closing => "closing",
            Self::Lost(reason) => reason,
        })
    }
}

impl ConnectionDriver {
    /// Drives the connection, and looks whether it takes more streams by `watched`, which keeps it
    /// open.
    pub(crate) fn poll_progress(
        &mut self,
        cx: &mut Context<'_>,
        watched: Option<&mut SendRequest<Chunk>>,
    ) -> Poll<Progress> {
        let connection = &mut self.connection;
        let ended = self.cork.turn(cx, |cx| Pin::new(&mut *connection).poll(cx));
        // GOAWAY shows only on the handle for new streams.
        let ready = watched.map(|requests| requests.poll_ready(cx));
        let progress = match (ended, ready) {
            (Poll::Ready(_), Some(Poll::Ready(Err(error)))) if is_asked(&error) => {
                Progress::Ended(LeaveReason::Asked)
            }
            (Poll::Ready(Ok(())), _) => {
                Progress::Ended(LeaveReason::Lost("closed by the other half".into()))
            }
            (Poll::Ready(Err(error)), _) => Progress::Ended(LeaveReason::Lost(error.to_string())),
            (Poll::Pending, Some(Poll::Ready(Err(error)))) => {
                Progress::Retired(if is_asked(&error) {
                    LeaveReason::Asked
                } else {
                    LeaveReason::Lost(error.to_string())
                })
            }
            (Poll::Pending, _) => return Poll::Pending,
        };
        Poll::Ready(progress)
    }
}

/// Starts HTTP/2 on a transport.
///
/// # Errors
/// The transport failed.
pub(crate) async fn handshake(
    transport: Transport,
    tuning: &Tuning,
) -> Result<OpenedConnection, LinkError> {
    let cork = transport.cork();
    let (requests, mut connection) = with_settings!(client::Builder::new(), tuning)
        // The other half opens no streams.
        .enable_push(false)
        .max_concurrent_streams(0)
        .handshake::<_, Chunk>(transport)
        .await?;
    let pings = connection.ping_pong().ok_or(LinkError::NoPings)?;
    Ok(OpenedConnection {
        requests,
        driver: ConnectionDriver { connection, cork },
        pings,
    })
}

/// Starts HTTP/2 and waits for a sign of life of the host.
///
/// # Errors
/// The transport failed, or the peer is not an enclaver-outer.
pub(crate) async fn open(
    transport: Transport,
    tuning: &Tuning,
) -> Result<OpenedConnection, LinkError> {
    let mut opened = handshake(transport, tuning).await?;
    // A transport that connects says nothing about the other half: vsock proxies take every
    // connection. Its answer also means that its SETTINGS are known.
    let pong = opened.pings.ping(h2::Ping::opaque());
    tokio::select! {
        pong = pong => { pong?; }
        ended = &mut opened.driver.connection => {
            ended?;
            return Err(PeerMisbehaved::ClosedAtOnce.into());
        }
    }
    if !opened.requests.is_extended_connect_protocol_enabled() {
        return Err(PeerMisbehaved::NoExtendedConnect.into());
    }
    Ok(opened)
}

/// What has become of a connection.
pub(crate) enum Progress {
    /// The connection is gone.
    Ended(LeaveReason),
    /// It takes no more flows, and those that are open go on.
    Retired(LeaveReason),
}

/// Whether the other half wants no more flows (GOAWAY without an error).
fn is_asked(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}
