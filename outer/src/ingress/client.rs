//! One client: from accept to the end of its flow.

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
use super::{GUEST_RETURN_TIMEOUT, proxy_header};
use crate::dial;
use crate::rules::ClientRules;

/// Longest wait for a PROXY protocol header where the first byte has no limit.
///
/// A load balancer sends the header first.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the counters are read within the idle time-out.
const IDLE_CHECKS: u32 = 4;

/// A client that was accepted.
pub(super) struct IngressClient {
    /// The address of the connection: the client's, or a load balancer's.
    pub(super) peer: SocketAddr,
    /// The limits at the time of accept.
    pub(super) rules: ClientRules,
    pub(super) admitted: AdmittedClient,
    /// The port in the guest's policy.
    pub(super) port: NonZeroU16,
    /// The guest that gets the clients of the listener.
    pub(super) holder: watch::Receiver<Option<Arc<IngressGuest>>>,
    /// Held until the guest has the client: a shutdown waits for it.
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

/// Displays an [`OpenError`] that came from a guest.
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

/// The two ends of a client's connection, from a PROXY header if there is one.
#[derive(Clone, Copy)]
struct ClientAddresses {
    client: SocketAddr,
    local: SocketAddr,
}

impl IngressClient {
    /// Serves the client until its connection ends.
    pub(super) async fn serve(mut self, socket: TcpStream) {
        let start = Instant::now();
        let (peer, port) = (self.peer, self.port);
        dial::probe(&socket);
        let ends = match self.identify(&socket).await {
            Ok(ends) => ends,
            Err(error) => {
                debug!(%peer, port, %error, "client reset");
                let _ = socket.set_zero_linger();
                return;
            }
        };
        let address = ends.client;
        let arrival = ClientSocket::new(socket, address);
        let (guest, stream) = match self.open(&arrival, ends).await {
            Ok(opened) => opened,
            Err(error) => {
                debug!(client = %address, %peer, port, %error, "client reset");
                let _ = arrival.socket().set_zero_linger();
                return;
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
            warn!(client = %address, port, %guest, undelivered, "client cut: the drain time is over");
        }
        debug!(client = %address, port, %guest, sent, received, ?duration, ?end, "client ended");
    }

    /// Finds the client's address: from a load balancer's header, else the peer's.
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
                Duration::ZERO => PROXY_HEADER_TIMEOUT,
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

    /// Asks the guest to connect the client with its app.
    ///
    /// When another guest takes the place of this one meanwhile, that one gets the client.
    async fn open(
        &mut self,
        arrival: &ClientSocket,
        ClientAddresses { client, local }: ClientAddresses,
    ) -> Result<(Arc<IngressGuest>, Stream), ResetReason> {
        let incoming = Incoming::new(self.port, client, local);
        loop {
            let holder = self.holder.borrow_and_update().clone();
            let Some(guest) = holder else {
                // A socket of the service manager accepts clients while no guest is connected.
                self.successor(GUEST_RETURN_TIMEOUT).await?;
                continue;
            };
            let opening = guest.client.connect_ingress(&incoming, arrival);
            let replaced = async {
                if self.holder.changed().await.is_err() {
                    // The listener is closed; the guest may still take this client.
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
                    self.successor(GUEST_RETURN_TIMEOUT).await?;
                }
                Err(error) => return Err(ResetReason::Open(error)),
            }
        }
    }

    /// Waits for a guest in place of the one that takes no more clients.
    async fn successor(&mut self, limit: Duration) -> Result<(), ResetReason> {
        match timeout(limit, self.holder.changed()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ResetReason::NoGuest),
        }
    }
}

/// Waits until the client resets its connection. A FIN is no end: the client may await an answer.
async fn gone(socket: &TcpStream) {
    let failed = socket.ready(Interest::ERROR).await;
    if failed.is_err() || !matches!(socket.take_error(), Ok(None)) {
        return;
    }
    std::future::pending().await
}

/// The address as IPv4, if it is an IPv4-mapped IPv6 address.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Waits until the client was silent for too long, and makes its connection end by a reset.
///
/// Never ready without a limit.
async fn silence(counters: &Counters, rules: &ClientRules, ending: &ResetHandle) -> &'static str {
    let why = silent(counters, rules).await;
    // Before the caller drops the relay, which closes the socket.
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
    let mut silent_checks = 0;
    loop {
        sleep(rules.idle / IDLE_CHECKS).await;
        let now = counters.get();
        silent_checks = if now == last { silent_checks + 1 } else { 0 };
        if silent_checks >= IDLE_CHECKS {
            return "idle for too long";
        }
        last = now;
    }
}
