//! The server.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::{io, thread};

use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};

use super::port_after;

const BUFFER: usize = 256 * 1024;
const SHORT_SERVERS: usize = 64;
/// Room for datagrams that came while the server did not run.
const UDP_BUFFER: usize = 4 << 20;

pub(crate) fn serve(address: SocketAddr) -> anyhow::Result<()> {
    serve_short(port_after(address, 1))?;
    serve_idle(port_after(address, 2))?;
    let socket = UdpSocket::bind(address)?;
    setsockopt(&socket, sockopt::RcvBufForce, &UDP_BUFFER)?;
    thread::spawn(move || count(&socket));
    let socket = UdpSocket::bind(port_after(address, 1))?;
    setsockopt(&socket, sockopt::RcvBufForce, &UDP_BUFFER)?;
    thread::spawn(move || echo(&socket));
    for stream in listener(address)?.incoming() {
        let Ok(stream) = stream else { continue };
        thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || drop(answer(stream)))?;
    }
    Ok(())
}

/// A listener with room for many clients at once.
fn listener(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listen(&listener, Backlog::new(4096)?)?;
    Ok(listener)
}

/// Answers each connection with a byte, without a thread for it.
fn serve_short(address: SocketAddr) -> anyhow::Result<()> {
    let listener = Arc::new(listener(address)?);
    for _ in 0..SHORT_SERVERS {
        let listener = Arc::clone(&listener);
        thread::spawn(move || {
            loop {
                if let Ok((mut stream, _)) = listener.accept() {
                    let mut byte = [0];
                    let _ = stream
                        .read_exact(&mut byte)
                        .and_then(|()| stream.write_all(&byte));
                }
            }
        });
    }
    Ok(())
}

/// Connections that are held, without a thread for each; a client that says `n` begins anew.
fn serve_idle(address: SocketAddr) -> anyhow::Result<()> {
    let listener = listener(address)?;
    thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_err() {
                continue;
            }
            if byte == *b"n" {
                held.clear();
            }
            if stream.write_all(&byte).is_ok() {
                held.push(stream);
            }
        }
    });
    Ok(())
}

/// The first byte of a connection says what it is for.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    match kind {
        [b'u'] => {
            let mut total = 0u64;
            let mut buffer = vec![0; BUFFER];
            loop {
                match stream.read(&mut buffer)? {
                    0 => break,
                    n => total += n as u64,
                }
            }
            stream.write_all(&total.to_be_bytes())
        }
        [b'h'] => {
            stream.write_all(&kind)?;
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer)? > 0 {}
            Ok(())
        }
        [b'd'] => {
            let buffer = vec![0; BUFFER];
            loop {
                stream.write_all(&buffer)?;
            }
        }
        _ => {
            stream.write_all(&kind)?;
            let mut buffer = [0; 4096];
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    n => stream.write_all(buffer.get(..n).unwrap_or_default())?,
                }
            }
        }
    }
}

/// Counts datagrams by where they come from; `q` asks for the count and ends it.
fn count(socket: &UdpSocket) {
    let mut counts: HashMap<SocketAddr, u64> = HashMap::new();
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let count = counts.entry(from).or_default();
        if buffer.get(..length) == Some(b"q") {
            let _ = socket.send_to(&count.to_be_bytes(), from);
        } else {
            *count += 1;
        }
        // Of clients that have long gone.
        if counts.len() > 4096 {
            counts.clear();
        }
    }
}

fn echo(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), from);
    }
}
