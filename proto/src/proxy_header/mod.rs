//! The header of the PROXY protocol, by which a proxy in front tells the address of its client.
//!
//! It stands before the first byte of a connection, in one of two forms (`proxy-protocol.txt` of
//! HAProxy is the specification; there is no RFC):
//!
//! ```text
//! version 1   PROXY TCP4 192.0.2.9 198.51.100.1 40000 443\r\n           a line of at most 107 bytes
//! version 2   12 bytes of signature · version and command · family · length · addresses · TLVs
//! ```
//!
//! Reading is strict: whoever is allowed to send a header sends a proper one, and a header that can
//! be read in two ways is an attack on whoever reads it in the other. [`Decoder`] takes bytes as they
//! come, and never one behind the header: these belong to the connection.

mod decode;
mod encode;
mod v1;
mod v2;

pub use decode::{Decoder, HeaderError};
pub use encode::{Tlv, write_v1, write_v2};

use std::net::SocketAddr;

/// Longest header of version 1, with its line end.
pub const MAX_V1: usize = 107;

/// Longest header of version 2 that is read. The format allows 64 KiB; what load balancers send is
/// a few hundred bytes, with a client certificate in it a few thousand.
pub const MAX_V2: usize = 8 * 1024;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The proxy speaks for itself (LOCAL: a health check).
    Local,
    /// The connection is somebody's, of whom no IP address is known.
    Unknown,
    /// The connection of a client.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// What it connected to.
        destination: SocketAddr,
    },
}
