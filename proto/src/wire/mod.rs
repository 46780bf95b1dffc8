//! Parsers and writers of what crosses the link outside HTTP/2 itself.
//!
//! Pure functions over bytes that the other side chose: no I/O, no clock. They are public so that
//! they can be fuzzed.

pub mod authority;
pub mod capsule;
pub mod feed;
pub mod flush;
pub mod hybrid;
pub mod ingress;
pub mod lane;
pub mod proxy_status;
pub mod service;
