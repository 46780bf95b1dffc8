//! An app that tries to get out. Every way is really tried.

mod bypass;
mod other_interfaces;
mod other_protocols;
mod seccomp;
mod unusual_sockets;
