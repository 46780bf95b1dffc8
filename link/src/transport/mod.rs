//! Connections between guest and host, below HTTP/2.
//!
//! `dial` (guest) and `listen` (host) make a [`Transport`](stream::Transport) from an
//! [`Endpoint`](odyn_proto::Endpoint): vsock, a Unix socket, or a monitor's Unix face of vsock.
//! `socket` gives it to h2, joins small frames to one write (`cork`), and fails a write that makes
//! no progress. `preamble` reads the first bytes, which tell HTTP/2, a reversed connection and a
//! lane apart. `lane_slot` and `lane_threads` hold lanes that no flow has yet, and run bulk flows.

pub(crate) mod cork;
pub(crate) mod dial;
pub(crate) mod lane_slot;
pub(crate) mod lane_threads;
pub(crate) mod listen;
pub(crate) mod preamble;
pub(crate) mod socket;
pub(crate) mod stream;
