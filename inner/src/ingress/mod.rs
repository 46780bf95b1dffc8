//! Ingress: connects clients on the host to the app.
//!
//! The guest opens reversed connections to the host, and the host opens a flow on them for each
//! client. The guest does not trust the host: the host may ask for any port and gets those of the
//! policy's `ingress` only, each on the loopback interface at the port that the policy names.
//!. The host is not trusted: it may ask for any port and gets those of the
//! policy's `ingress` only, each on the loopback interface, at the port that the policy says.

mod app;
mod denials;
mod handler;
mod ports;
mod proxy_header;
mod tls;

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use odyn_link::drain::Watch;
use odyn_link::{LaneMode, ReversedConfig, ReversedConnections};
use odyn_proto::wire::ingress::{IngressHello, MAX_PORTS};
use odyn_proto::{Endpoint, Identity};

pub use self::ports::{IngressFilesError, Ports};
use crate::audit::Audit;
use crate::ingress::handler::ClientHandler;

/// How long a client's TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The running ingress, which takes part in the drain. [`RunningIngress::close`] ends it.
pub struct RunningIngress {
    clients: Arc<ClientHandler>,
    /// `None` when the policy has no ingress.
    reverse: Option<ReversedConnections>,
}

/// Offers the policy's ports to the host, if there are any.
///
/// Must be called in a tokio runtime.
pub fn start(
    link: Endpoint,
    lanes: LaneMode,
    ports: Ports,
    identity: Identity,
    audit: Audit,
    drain: Watch,
) -> RunningIngress {
    start_with(
        link,
        lanes,
        ports,
        identity,
        audit,
        drain,
        HANDSHAKE_TIMEOUT,
    )
}

fn start_with(
    link: Endpoint,
    lanes: LaneMode,
    Ports { ports }: Ports,
    identity: Identity,
    audit: Audit,
    drain: Watch,
    handshake: Duration,
) -> RunningIngress {
    let mut listen: Vec<NonZeroU16> = ports.keys().copied().collect();
    listen.sort_unstable();
    if listen.len() > MAX_PORTS {
        tracing::error!(
            max = MAX_PORTS,
            "too many ports for ingress: the last are not served"
        );
        listen.truncate(MAX_PORTS);
    }
    let clients = Arc::new(ClientHandler::new(ports, audit, handshake));
    let reverse = (!listen.is_empty()).then(|| {
        let hello = IngressHello {
            identity,
            ports: listen,
        };
        let mut config = ReversedConfig::default();
        config.tuning.lanes = lanes;
        ReversedConnections::start(link, config, hello, Arc::clone(&clients), drain)
    });
    RunningIngress { clients, reverse }
}

impl RunningIngress {
    /// Waits for the end of the connections after a drain, for at most `limit`.
    pub async fn close(&self, limit: Duration) {
        if let Some(reverse) = &self.reverse {
            reverse.close(limit).await;
        }
    }

    /// The number of clients that are connected now.
    pub fn open_flows(&self) -> usize {
        self.clients.count()
    }
}

#[cfg(test)]
mod tests;
