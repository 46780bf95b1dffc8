//! Ingress: clients that the host half has for the program.
//!
//! They come over connections that we dial and on which the host half opens the flows
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
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The running ingress. It takes part in the drain that it was given, and ends by
/// [`RunningIngress::close`].
pub struct RunningIngress {
    clients: Arc<ClientHandler>,
    /// None when the policy wants no clients.
    reverse: Option<ReversedConnections>,
}

/// Offers the ports of the policy to the host half, if it has any.
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
    start_with(link, lanes, ports, identity, audit, drain, HANDSHAKE)
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

    /// Clients whose connections are open now.
    pub fn open_flows(&self) -> usize {
        self.clients.count()
    }
}

#[cfg(test)]
mod tests;
