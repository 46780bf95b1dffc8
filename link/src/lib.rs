//! The link between the two halves: TCP flows, UDP flows and DNS messages over HTTP/2.
//!
//! The guest dials and is the HTTP/2 client ([`Client`]); the host listens and is the server
//! ([`Listener`], [`serve`]). For clients of the guest's program the roles are [`reverse`]d. Who may
//! reach what is not decided here: the guest asks only for [`Target`]s that its policy let through,
//! and the host's [`Handler`] may refuse any of them.
//!
//! | what | on the wire |
//! |---|---|
//! | TCP flow | `CONNECT`, RFC 9113 section 8.5 |
//! | UDP flow | extended `CONNECT` (RFC 8441) with `:protocol: connect-udp` (RFC 9298), DATAGRAM capsules (RFC 9297) |
//! | DNS message | `POST /dns-query`, `application/dns-message` (RFC 8484) |
//! | a TCP flow's own connection | [`wire::lane`], beside HTTP/2 |
//! | client of the guest's program | `CONNECT ingress:PORT` on a reversed connection |
//! | feed (log, status) | `POST /feed/NAME`, records up, acknowledgements down ([`wire::feed`]) |
//! | is everything delivered? | `POST /flush` ([`wire::flush`]) |
//! | TCP flow to KMS, by name | `CONNECT` with `odyn-service: kms` ([`wire::service`]) |
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

mod chunk;
mod client;
pub mod config;
mod connect;
mod cork;
mod crew;
mod datagrams;
mod delivery;
mod dial;
mod drain;
mod early;

mod error;
mod exchange;
mod feed;
mod flush;

mod io;
mod keepalive;
mod lane;
mod limit;
mod listener;
mod losses;
mod outq;
mod pool;
mod relay;
mod relay_udp;
pub mod reverse;
mod server;
mod service;
mod session;
mod socket;
mod stream;

mod transport;

pub use client::{Client, Drained, LinkState, Opened};
pub use config::{ClientConfig, ServerConfig, Tuning};
pub use connect::connect;
pub use datagrams::{DatagramReceiver, DatagramSender, Datagrams};
pub use dial::dial;
pub use drain::{Busy, Drain, Phase};
pub use error::{DatagramError, DialError, LinkError, ListenError, OpenError, refusal_from_io};
pub use feed::{Feed, FeedSink, Pending, now};
pub use io::LinkIo;
pub use lane::{LaneMode, Lanes};
pub use limit::{FlowLimit, FlowPermit};
pub use listener::{ListenOptions, Listener};
pub use outq::unacknowledged;
pub use pool::connection::Leave;
pub use relay::{Counters, End, relay};
pub use relay_udp::relay_udp;
pub use server::{FlowKind, FlowReport, Handler, serve};
pub use session::Shutdown;
pub use stream::Stream;
pub use transport::{Peer, Transport};
