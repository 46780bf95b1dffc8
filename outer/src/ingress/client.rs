//! One client: from its connection to the relay with its guest.

use std::{
    net::SocketAddr,
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, Instant},
};

use odyn_link::{End, FlowPermit, OpenError, Stream, reverse::Arrival, wire::ingress::Incoming};
use tokio::{io::Interest, net::TcpStream, sync::watch, time::timeout};
use tracing::{debug, warn};

use super::{LINGER, guests::Guest};
use crate::dial;

/// A client that was accepted.
pub(super) struct Client {
    pub(super) arrival: Arrival,
    pub(super) address: SocketAddr,
    /// The port of the policy.
    pub(super) port: NonZeroU16,
    /// The guest that gets it.
    pub(super) holder: watch::Receiver<Option<Arc<Guest>>>,
    pub(super) _permit: Option<FlowPermit>,
}

/// Why a client was reset.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("there is no guest any more")]
    NoGuest,
    #[error("the client went")]
    ClientGone,
    #[error("{}", Words(.0))]
    Open(OpenError),
}

/// An [`OpenError`] in words for this side: it is the guest that answers.
struct Words<'a>(&'a OpenError);

impl std::fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            OpenError::Refused(refusal) => write!(f, "refused by the guest: {refusal}"),
            OpenError::Timeout(limit) => write!(f, "the guest did not answer in {limit:?}"),
            other => other.fmt(f),
        }
    }
}

impl Client {
    /// Brings the client to its guest, and returns when its connection has ended; says how.
    pub(super) async fn serve(mut self) -> Option<End> {
        let start = Instant::now();
        let (address, port) = (self.address, self.port);
        dial::probe(self.arrival.socket());
        let (guest, stream) = match self.open().await {
            Ok(opened) => opened,
            Err(error) => {
                debug!(client = %address, port, %error, "client reset");
                let _ = self.arrival.socket().set_zero_linger();
                return None;
            }
        };
        debug!(client = %address, port, %guest, "client connected");
        let counters = self.arrival.counters();
        let end = self.arrival.relay(stream).await;
        let (received, sent) = counters.get();
        let duration = start.elapsed();
        if let End::Cut { undelivered } = end {
            warn!(client = %address, port, %guest, undelivered, "client cut: no more time");
        }
        debug!(client = %address, port, %guest, sent, received, ?duration, ?end, "client ended");
        Some(end)
    }

    /// Has the guest connect the client with its program. When the guest is replaced meanwhile,
    /// its successor gets the client.
    async fn open(&mut self) -> Result<(Arc<Guest>, Stream), Failed> {
        let local = self
            .arrival
            .socket()
            .local_addr()
            .map_err(|_| Failed::ClientGone)?;
        let incoming = Incoming::new(self.port, self.address, local);
        loop {
            let holder = self.holder.borrow_and_update().clone();
            let guest = holder.ok_or(Failed::NoGuest)?;
            let opening = guest.client.connect_ingress(&incoming, &self.arrival);
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
                () = gone(self.arrival.socket()) => return Err(Failed::ClientGone),
            };
            match opened {
                Ok(stream) => return Ok((guest, stream)),
                Err(OpenError::Closing | OpenError::LinkDown(_)) => {
                    self.successor(LINGER).await?;
                }
                Err(error) => return Err(Failed::Open(error)),
            }
        }
    }

    /// Waits for another guest in the place of the one that takes no more clients.
    async fn successor(&mut self, limit: Duration) -> Result<(), Failed> {
        match timeout(limit, self.holder.changed()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Failed::NoGuest),
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
