//! One client: from its connection to the relay with its guest.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use odyn_link::{ClientSocket, Counters, End, FlowPermit, OpenError, ResetHandle, Stream};
use odyn_proto::proxy_header::Header;
use odyn_proto::wire::ingress::Incoming;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, warn};

use super::admission::{AdmissionError, AdmittedClient};
use super::guests::IngressGuest;
use super::proxy_header::ProxyHeaderError;
use super::{LINGER, proxy_header};
use crate::dial;
use crate::rules::ClientRules;

/// How long a header of the PROXY protocol may take where no first byte has a limit: it is the
/// first thing that a load balancer sends.
const HEADER: Duration = Duration::from_secs(10);

/// A silent client is noticed after so many looks at its counters.
const LOOKS: u32 = 4;

/// A client that was accepted.
pub(super) struct IngressClient {
    /// Where the connection comes from.
    pub(super) peer: SocketAddr,
    /// The rules as they were when it came.
    pub(super) rules: ClientRules,
    pub(super) admitted: AdmittedClient,
    /// The port of the policy.
    pub(super) port: NonZeroU16,
    /// The guest that gets it.
    pub(super) holder: watch::Receiver<Option<Arc<IngressGuest>>>,
    /// Until its guest has it: a shutdown waits for that.
    pub(super) opening: Option<TaskTrackerToken>,
    pub(super) _permit: Option<FlowPermit>,
}

/// Why a client was reset.
#[derive(Debug, thiserror::Error)]
enum ResetReason {
    #[error("there is no guest any more")]
    NoGuest,
    #[error("the client went")]
    ClientGone,
    #[error(transparent)]
    AdmissionError(#[from] AdmissionError),
    #[error(transparent)]
    ProxyHeaderError(#[from] ProxyHeaderError),
    #[error("{}", GuestSideError(.0))]
    Open(OpenError),
}

/// An [`OpenError`] in words for this side: it is the guest that answers.
struct GuestSideError<'a>(&'a OpenError);

impl std::fmt::Display for GuestSideError<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            OpenError::Refused(refusal) => write!(f, "refused by the guest: {refusal}"),
            OpenError::Timeout(limit) => write!(f, "the guest did not answer in {limit:?}"),
            other => other.fmt(f),
        }
    }
}

/// Between whom a connection is, as far as it is known here.
#[derive(Clone, Copy)]
struct ClientAddresses {
    client: SocketAddr,
    local: SocketAddr,
}

impl IngressClient {
    /// Brings the client to its guest, and returns when its connection has ended; says how.
    pub(super) async fn serve(mut self, socket: TcpStream) -> Option<End> {
        let start = Instant::now();
        let (peer, port) = (self.peer, self.port);
        dial::probe(&socket);
        let ends = match self.identify(&socket).await {
            Ok(ends) => ends,
            Err(error) => {
                debug!(%peer, port, %error, "client reset");
                let _ = socket.set_zero_linger();
                return None;
            }
        };
        let address = ends.client;
        let arrival = ClientSocket::new(socket, address);
        let (guest, stream) = match self.open(&arrival, ends).await {
            Ok(opened) => opened,
            Err(error) => {
                debug!(client = %address, %peer, port, %error, "client reset");
                let _ = arrival.socket().set_zero_linger();
                return None;
            }
        };
        self.opening = None;
        debug!(client = %address, %peer, port, %guest, "client connected");
        let (counters, ending) = (arrival.counters(), arrival.ending());
        let end = tokio::select! {
            end = arrival.relay(stream) => Some(end),
            why = silence(&counters, &self.rules, &ending) => {
                debug!(client = %address, port, %guest, why, "client reset");
                None
            }
        };
        let (received, sent) = counters.get();
        let duration = start.elapsed();
        if let Some(End::Cut { undelivered }) = end {
            warn!(client = %address, port, %guest, undelivered, "client cut: no more time");
        }
        debug!(client = %address, port, %guest, sent, received, ?duration, ?end, "client ended");
        end
    }

    /// Who the client is: a load balancer says it, others are who they are.
    async fn identify(&mut self, socket: &TcpStream) -> Result<ClientAddresses, ResetReason> {
        let local = socket.local_addr().map_err(|_| ResetReason::ClientGone)?;
        let local = canonical(local);
        let direct = ClientAddresses {
            client: self.peer,
            local,
        };
        let mut ends = direct;
        if self.rules.is_proxy(local, self.peer.ip()) {
            let limit = match self.rules.first_byte {
                Duration::ZERO => HEADER,
                limit => limit,
            };
            ends = match proxy_header::take(socket, limit).await? {
                Header::Proxied {
                    source,
                    destination,
                } => ClientAddresses {
                    client: source,
                    local: destination,
                },
                Header::Local | Header::Unknown => direct,
            };
        }
        self.admitted.came_from(ends.client.ip(), &self.rules)?;
        Ok(ends)
    }

    /// Has the guest connect the client with its program. When the guest is replaced meanwhile,
    /// its successor gets the client.
    async fn open(
        &mut self,
        arrival: &ClientSocket,
        ClientAddresses { client, local }: ClientAddresses,
    ) -> Result<(Arc<IngressGuest>, Stream), ResetReason> {
        let incoming = Incoming::new(self.port, client, local);
        loop {
            let holder = self.holder.borrow_and_update().clone();
            let Some(guest) = holder else {
                // A socket of the service manager takes clients before the guest is here again.
                self.successor(LINGER).await?;
                continue;
            };
            let opening = guest.client.connect_ingress(&incoming, arrival);
            let replaced = async {
                if self.holder.changed().await.is_err() {
                    // Nobody listens any more; the guest may still take this one.
                    std::future::pending().await
                }
            };
            let opened = tokio::select! {
                biased;
                opened = opening => opened,
                () = replaced => continue,
                () = gone(arrival.socket()) => return Err(ResetReason::ClientGone),
            };
            match opened {
                Ok(stream) => return Ok((guest, stream)),
                Err(OpenError::Closing | OpenError::LinkDown(_)) => {
                    self.successor(LINGER).await?;
                }
                Err(error) => return Err(ResetReason::Open(error)),
            }
        }
    }

    /// Waits for another guest in place of the one that takes no more clients.
    async fn successor(&mut self, limit: Duration) -> Result<(), ResetReason> {
        match timeout(limit, self.holder.changed()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ResetReason::NoGuest),
        }
    }
}

/// Waits until the client has reset its connection. A FIN is no such thing: it may wait for an
/// answer.
async fn gone(socket: &TcpStream) {
    let failed = socket.ready(Interest::ERROR).await;
    if failed.is_err() || !matches!(socket.take_error(), Ok(None)) {
        return;
    }
    std::future::pending().await
}

/// An IPv4 client of a socket for both families is an IPv4 client.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Waits until the client was silent for too long, and has its connection end by a reset. Never
/// ready without a limit.
async fn silence(counters: &Counters, rules: &ClientRules, ending: &ResetHandle) -> &'static str {
    let why = silent(counters, rules).await;
    // Before the relay is dropped, which closes the socket.
    ending.by_reset();
    why
}

async fn silent(counters: &Counters, rules: &ClientRules) -> &'static str {
    if rules.first_byte > Duration::ZERO {
        sleep(rules.first_byte).await;
        if counters.get().0 == 0 {
            return "no first byte in time";
        }
    }
    if rules.idle.is_zero() {
        return std::future::pending().await;
    }
    let mut last = counters.get();
    let mut looks = 0;
    loop {
        sleep(rules.idle / LOOKS).await;
        let now = counters.get();
        looks = if now == last { looks + 1 } else { 0 };
        if looks >= LOOKS {
            return "idle for too long";
        }
        last = now;
    }
}
