//! Connections between guest and host, below HTTP/2.

pub(crate) mod cork;
pub(crate) mod dial;
pub(crate) mod lane_slot;
pub(crate) mod lane_threads;
pub(crate) mod listen;
pub(crate) mod preamble;
pub(crate) mod socket;
pub(crate) mod stream;
