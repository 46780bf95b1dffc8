//! Flows: each has one HTTP/2 stream, may have a lane, and serves one socket.

pub(crate) mod client_socket;
pub(crate) mod datagrams;
pub(crate) mod early_data;
pub(crate) mod end;
pub(crate) mod io;
pub(crate) mod lane;
pub(crate) mod lease;
pub(crate) mod local_stream;
pub(crate) mod stream;
pub(crate) mod tcp;
pub(crate) mod udp;
