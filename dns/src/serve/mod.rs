//! The resolver on sockets.

mod tcp;
mod udp;

pub use tcp::serve_tcp;
pub use udp::serve_udp;
