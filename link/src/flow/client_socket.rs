//! A client on the host, from its arrival to its end.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::drain::delivery::{DeliveryTable, FlowGuard};
use crate::flow::end::End;
use crate::flow::stream::Stream;
use crate::flow::tcp::relay;
use crate::sockets::counters::Counters;
use crate::sockets::send_queue::{ObservedSocket, SendQueue};

/// A client's connection on the host. What its guest has sent and it has not taken is known to the
/// connection of the link from the moment on at which the guest is asked for it.
#[derive(Debug)]
pub struct ClientSocket {
    socket: ObservedSocket,
    send_queue: Arc<SendQueue>,
    client: SocketAddr,
    counters: Arc<Counters>,
}

/// Ends a client's connection while the relay has it.
#[derive(Debug)]
pub struct ResetHandle(Arc<SendQueue>);

impl ResetHandle {
    /// The connection will be reset when its relay is dropped.
    pub fn by_reset(&self) {
        self.0.reset_on_close();
    }
}

impl ClientSocket {
    /// A connection that was accepted from this address.
    pub fn new(socket: TcpStream, client: SocketAddr) -> Self {
        let mut socket = ObservedSocket::new(socket);
        Self {
            send_queue: socket.send_queue(),
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

    /// As [`relay`](crate::flow::tcp()).
    pub async fn relay(self, stream: Stream) -> End {
        relay(self.socket, stream, self.counters).await
    }
}
