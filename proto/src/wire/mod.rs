//! Parsers and writers of everything on the link except HTTP/2 itself.
//!
//! They are pure functions over bytes of the peer, without I/O or clock. Fuzz targets use them.

pub mod authority;
pub mod capsule;
pub mod feed;
pub mod flush;
pub mod hybrid;
pub mod ingress;
pub mod lane;
pub mod proxy_status;
pub mod service;
