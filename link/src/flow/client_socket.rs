//! A client's connection on the host.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::drain::delivery::{DeliveryTable, FlowGuard};
use crate::flow::end::End;
use crate::flow::stream::Stream;
use crate::flow::tcp::relay;
use crate::sockets::counters::Counters;
use crate::sockets::send_queue::{ObservedSocket, SendQueue};

/// A client's connection on the host. Once the guest is asked for it, the link's connection knows
/// what the guest has sent and the client has not acknowledged.
#[derive(Debug)]
pub struct ClientSocket {
    socket: ObservedSocket,
    send_queue: Arc<SendQueue>,
    client: SocketAddr,
    counters: Arc<Counters>,
}

/// Resets a client's connection while the relay has it.
#[derive(Debug)]
pub struct ResetHandle(Arc<SendQueue>);

impl ResetHandle {
    /// Makes the drop of the relay reset the connection.
    pub fn by_reset(&self) {
        self.0.reset_on_close();
    }
}

impl ClientSocket {
    /// Takes a connection that was accepted from `client`.
    pub fn new(socket: TcpStream, client: SocketAddr) -> Self {
        let mut socket = ObservedSocket::new(socket);
        Self {
            send_queue: socket.send_queue(),
            socket,
            client,
            counters: Arc::default(),
        }
    }

    /// The client's socket.
    pub fn socket(&self) -> &TcpStream {
        self.socket.get()
    }

    /// Counters of the bytes moved: up is from the client.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// A handle that ends the connection by a reset, also while it is relayed.
    pub fn ending(&self) -> ResetHandle {
        ResetHandle(Arc::clone(&self.send_queue))
    }

    pub(crate) fn track(&self, deliveries: &Arc<DeliveryTable>, stream: u32) -> FlowGuard {
        deliveries.track(
            stream,
            self.client,
            Arc::clone(&self.counters),
            Some(Arc::clone(&self.send_queue)),
        )
    }

    /// As [`relay`].
    pub async fn relay(self, stream: Stream) -> End {
        relay(self.socket, stream, self.counters).await
    }
}
