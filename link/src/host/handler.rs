//! The operations that the host does for its guests.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use odyn_proto::wire::feed::Opening;
use odyn_proto::{KmsEndpoint, Refusal, Target};
use tokio::net::{TcpStream, UdpSocket};

use crate::feed::FeedSink;
use crate::flow::end::End;
use crate::transport::stream::Peer;

/// The operations that the host does for its guests.
pub trait Handler: Send + Sync + 'static {
    /// Dials a TCP target. The future is dropped when the guest gives the flow up.
    fn connect_tcp(
        &self,
        target: Target,
        peer: &Peer,
    ) -> impl Future<Output = Result<(TcpStream, SocketAddr), Refusal>> + Send;

    /// Opens a UDP socket that is connected to the target.
    fn connect_udp(
        &self,
        target: Target,
        peer: &Peer,
    ) -> impl Future<Output = Result<(UdpSocket, SocketAddr), Refusal>> + Send;

    /// Answers a DNS message.
    fn dns(&self, query: Bytes, peer: &Peer)
    -> impl Future<Output = Result<Bytes, Refusal>> + Send;

    /// Looks up and dials an endpoint of KMS; refuses other names.
    fn connect_kms(
        &self,
        endpoint: KmsEndpoint,
        peer: &Peer,
    ) -> impl Future<Output = Result<(TcpStream, SocketAddr), Refusal>> + Send {
        let _ = (endpoint, peer);
        async { Err(Refusal::Prohibited) }
    }

    /// The credentials of this machine, as JSON of at most
    /// [`MAX_CREDENTIALS`](odyn_proto::wire::service::MAX_CREDENTIALS) bytes.
    fn credentials(&self, peer: &Peer) -> impl Future<Output = Result<Bytes, Refusal>> + Send {
        let _ = peer;
        async { Err(Refusal::Prohibited) }
    }

    /// Opens a feed; the sink says which record it wants. Waits until the writes of an earlier
    /// opening have ended.
    fn feed(
        &self,
        opening: Opening,
        peer: &Peer,
    ) -> impl Future<Output = Result<Box<dyn FeedSink>, Refusal>> + Send {
        let _ = (opening, peer);
        async { Err(Refusal::BadRequest) }
    }

    /// Called once for each opened flow, when it has ended.
    fn ended(&self, report: &FlowReport) {
        let _ = report;
    }
}

/// What a flow carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowKind {
    /// A stream of bytes.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A flow that has ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FlowReport {
    /// TCP or UDP.
    pub kind: FlowKind,
    /// The guest that the flow belonged to.
    pub peer: Peer,
    /// The address that was dialled.
    pub dialled: SocketAddr,
    /// Payload bytes from the guest.
    pub sent: u64,
    /// Payload bytes to the guest.
    pub received: u64,
    /// Time since the flow was opened.
    pub duration: Duration,
    /// How the flow ended; the socket is the one to the destination.
    pub end: End,
}
