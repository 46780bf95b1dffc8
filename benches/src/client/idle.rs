//! Connections that do nothing.

use std::io::{Read, Write};
use std::net::SocketAddr;

use super::{connect, port_after, start};

pub(crate) fn idle(to: SocketAddr, flows: usize) -> anyhow::Result<()> {
    let to = port_after(to, 2);
    let mut held = Vec::with_capacity(flows);
    for _ in 0..flows {
        let mut stream = connect(to)?;
        // The first one lets the server forget those of the client before.
        stream.write_all(if held.is_empty() { b"n" } else { b"h" })?;
        stream.read_exact(&mut [0])?;
        held.push(stream);
    }
    println!("ready");
    start::stay()
}
