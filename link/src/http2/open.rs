//! A connection on which this side opens the streams.

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

/// A client connection whose handshake is done.
pub(crate) struct OpenedConnection {
    pub(crate) requests: SendRequest<Chunk>,
    pub(crate) driver: ConnectionDriver,
    pub(crate) pings: PingPong,
}

/// Drives a connection, with its transport corked.
pub(crate) struct ConnectionDriver {
    pub(crate) connection: client::Connection<Transport, Chunk>,
    cork: Cork,
}

/// Why a connection takes no more flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaveReason {
    /// The peer asked for it (GOAWAY without an error).
    Asked,
    /// This side closes.
    Closing,
    /// The connection failed, or was closed without GOAWAY.
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
    /// Drives the connection. `watched` keeps it open, and shows whether it takes more streams.
    pub(crate) fn poll_progress(
        &mut self,
        cx: &mut Context<'_>,
        watched: Option<&mut SendRequest<Chunk>>,
    ) -> Poll<Progress> {
        let connection = &mut self.connection;
        let ended = self.cork.turn(cx, |cx| Pin::new(&mut *connection).poll(cx));
        // h2 reports GOAWAY only by the handle for new streams.
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
        // The peer opens no streams.
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

/// Starts HTTP/2 and waits for the answer to a PING.
///
/// # Errors
/// The transport failed, or the peer is not an enclaver-outer.
pub(crate) async fn open(
    transport: Transport,
    tuning: &Tuning,
) -> Result<OpenedConnection, LinkError> {
    let mut opened = handshake(transport, tuning).await?;
    // That a transport connects says nothing about the host: vsock proxies accept every connection.
    // The answer also shows that the host's SETTINGS have arrived.
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

/// A change of a connection.
pub(crate) enum Progress {
    /// The connection has ended.
    Ended(LeaveReason),
    /// The connection takes no more flows; open flows go on.
    Retired(LeaveReason),
}

/// Whether the peer wants no more flows (GOAWAY without an error).
fn is_asked(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}
