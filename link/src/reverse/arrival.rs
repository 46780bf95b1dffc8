//! A client on the host, from its arrival to its end.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::delivery::{Registry, Tracked};
use crate::outq::{Probe, Probed};
use crate::relay::{Counters, End, relay_probed};
use crate::stream::Stream;

/// A client's connection on the host. What its guest has sent and it has not taken is known to the
/// connection of the link from the moment on at which the guest is asked for it.
#[derive(Debug)]
pub struct Arrival {
    socket: Probed,
    probe: Arc<Probe>,
    client: SocketAddr,
    counters: Arc<Counters>,
}

/// Ends a client's connection while the relay has it.
#[derive(Debug)]
pub struct Ending(Arc<Probe>);

impl Ending {
    /// The connection will be reset when its relay is dropped.
    pub fn by_reset(&self) {
        self.0.reset_on_close();
    }
}

impl Arrival {
    /// A connection that was accepted from this address.
    pub fn new(socket: TcpStream, client: SocketAddr) -> Self {
        let mut socket = Probed::alone(socket);
        Self {
            probe: socket.probe(),
            socket,
            client,
            counters: Arc::default(),
        }
    }

    /// Its socket.
    pub fn socket(&self) -> &TcpStream {
        self.socket.get()
    }

    /// Bytes moved: up is from the client.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// To end it by a reset, also while it is relayed.
    pub fn ending(&self) -> Ending {
        Ending(Arc::clone(&self.probe))
    }

    pub(crate) fn track(&self, registry: &Arc<Registry>, stream: u32) -> Tracked {
        registry.track(
            stream,
            self.client,
            Arc::clone(&self.counters),
            Some(Arc::clone(&self.probe)),
        )
    }

    /// As [`relay`](crate::relay()).
    pub async fn relay(self, stream: Stream) -> End {
        relay_probed(self.socket, stream, self.counters).await
    }
}
