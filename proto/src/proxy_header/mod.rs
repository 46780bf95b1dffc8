//! The header of the PROXY protocol, by which a proxy sends the address of its client.
//!
//! It precedes the first byte of a connection, in one of two forms (`proxy-protocol.txt` of
//! HAProxy is the specification; there is no RFC):
//!
//! ```text
//! version 1   PROXY TCP4 192.0.2.9 198.51.100.1 40000 443\r\n           a line of at most 107 bytes
//! version 2   12 bytes of signature · version and command · family · length · addresses · TLVs
//! ```
//!
//! The decoder is strict: a header that can be read in two ways is an attack on the reader that
//! reads it the other way. [`HeaderDecoder`] takes bytes in any chunks, and none after the header:
//! those belong to the connection.

mod decode;
mod encode;
mod v1;
mod v2;

pub use crate::proxy_header::decode::HeaderDecoder;
pub use decode::HeaderError;
pub use encode::{Tlv, write_v1, write_v2};

use std::net::SocketAddr;

/// Longest header of version 1, with its line end.
pub const MAX_V1: usize = 107;

/// Longest header of version 2 that is read.
///
/// The format allows 64 KiB. Load balancers send a few hundred bytes, or a few thousand with a
/// client certificate.
pub const MAX_V2: usize = 8 * 1024;

/// The content of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The connection is the proxy's own (LOCAL), such as a health check.
    Local,
    /// The connection is a client's, without a known IP address.
    Unknown,
    /// The connection of a client.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
}
