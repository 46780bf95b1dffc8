//! The link between guest and host: TCP flows, UDP flows and DNS messages over HTTP/2.
//!
//! The guest dials and is the HTTP/2 client ([`HostLink`]); the host listens and is the server
//! ([`Listener`], [`serve`]). For clients of the app the roles are reversed: the guest dials and is
//! the server ([`ReversedConnections`]), the host opens the streams ([`GuestLink`]). The link
//! decides nothing about who may reach what: the guest asks only for
//! [`Target`](odyn_proto::Target)s that its policy let through, and the host's [`Handler`] may
//! refuse each of them.
//!
//! | what | on the wire |
//! |---|---|
//! | TCP flow | `CONNECT`, RFC 9113 section 8.5 |
//! | UDP flow | extended `CONNECT` (RFC 8441) with `:protocol: connect-udp` (RFC 9298), DATAGRAM capsules (RFC 9297) |
//! | DNS message | `POST /dns-query`, `application/dns-message` (RFC 8484) |
//! | lane: a connection that one TCP flow has for itself | [`wire::lane`](odyn_proto::wire::lane), beside HTTP/2 |
//! | client of the app | `CONNECT ingress:PORT` on a reversed connection |
//! | feed (log, status) | `POST /feed/NAME`, records up, acknowledgements down ([`wire::feed`](odyn_proto::wire::feed)) |
//! | is everything delivered? | `POST /flush` ([`wire::flush`](odyn_proto::wire::flush)) |
//! | TCP flow to KMS, by name | `CONNECT` with `odyn-service: kms` ([`wire::service`](odyn_proto::wire::service)) |
//! | credentials of the host's machine | `POST /credentials` |
//! | outcome of a dial | status and `proxy-status` (RFC 9209) |
//!
//! # Ends of a flow
//!
//! A FIN is END_STREAM, in each direction by itself. A TCP reset is `RST_STREAM(CONNECT_ERROR)`
//! and becomes a reset of the TCP socket on the other side. Neither is read from the state of the
//! transport: vsock implementations lose half-closes. A reset never overtakes bytes that its
//! sender had handed over before: they are delivered first, within
//! [`Tuning::reset_grace`](config::Tuning::reset_grace).
//!
//! # Memory
//!
//! A flow holds at most its receive window ([`Tuning::stream_window`](config::Tuning::stream_window))
//! on one side and its send buffer ([`Tuning::send_buffer`](config::Tuning::send_buffer)) on the
//! other; an idle flow holds no buffer. The window is opened again only when the bytes were
//! written to the socket, so a peer that does not read stalls its own flow and no other.

#![deny(unsafe_code)]

pub mod config;
pub mod drain;
mod error;
mod feed;
mod flow;
mod guest;
mod host;
mod http2;
mod pool;
mod runtime;
mod sockets;
mod sync;
mod transport;

pub use config::{LaneMode, Tuning};
pub use error::{
    DatagramError, DialError, LinkError, ListenError, OpenError, PeerMisbehaved, refusal_from_io,
};
pub use feed::{Feed, FeedBacklog, FeedSink, now};
pub use flow::client_socket::{ClientSocket, ResetHandle};
pub use flow::datagrams::{DatagramReceiver, DatagramSender, Datagrams};
pub use flow::end::End;
pub use flow::io::LinkIo;
pub use flow::lane::HostLanes;
pub use flow::local_stream::LocalStream;
pub use flow::stream::Stream;
pub use flow::tcp::relay;
pub use flow::udp::{DatagramSocket, flow_to_socket, relay_udp, socket_to_flow};
pub use guest::config::HostLinkConfig;
pub use guest::drain::Drained;
pub use guest::ingress::{
    Abandoned, IngressHandler, PendingClient, ReversedConfig, ReversedConnections,
};
pub use guest::link::{HostLink, OpenedFlow};
pub use host::config::{GuestLinkConfig, ServerConfig};
pub use host::flow_limit::{FlowLimit, FlowPermit};
pub use host::guest_link::GuestLink;
pub use host::handler::{FlowKind, FlowReport, Handler};
pub use host::ingress::{GreetedGuest, greet_guest};
pub use host::serve::serve;
pub use http2::open::LeaveReason;
pub use pool::state::LinkState;
pub use sockets::connect::connect;
pub use sockets::counters::Counters;
pub use sockets::send_queue::unacknowledged;
pub use transport::dial::dial;
pub use transport::listen::{ListenOptions, Listener};
pub use transport::preamble::{Preamble, read_preamble};
pub use transport::stream::{Peer, Transport};
