//! HTTP/2 on a transport: a connection, what drives it, and what is said on it.

pub(crate) mod accept;
pub(crate) mod chunk;
pub(crate) mod executor;
pub(crate) mod keepalive;
pub(crate) mod message;
pub(crate) mod open;
mod settings;
