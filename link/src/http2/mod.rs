//! HTTP/2 on a transport: connections, their drivers, requests and answers.

pub(crate) mod accept;
pub(crate) mod chunk;
pub(crate) mod executor;
pub(crate) mod keepalive;
pub(crate) mod message;
pub(crate) mod open;
mod settings;
