//! Flows: one stream of HTTP/2 each, or one lane, beside one socket.

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
