//! Small servers as threads of the test, on sockets made in a namespace.
//!
//! The threads end with the test process: they hold nothing but sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::sys::socket::{setsockopt, sockopt};

/// Serves each connection on a thread of its own.
pub fn tcp(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::Builder::new()
                .stack_size(64 * 1024)
                .spawn(move || serve(stream))
                .expect("a thread");
        }
    });
}

/// Says one line to each client, and closes when the client does.
pub fn banner(listener: TcpListener, line: &'static str) {
    tcp(listener, move |mut stream| {
        let _ = stream.write_all(format!("{line}\n").as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
}

/// Reads each connection to its end; what it said comes out of the receiver.
pub fn collect(listener: TcpListener) -> Receiver<Vec<u8>> {
    let (send, ended) = channel();
    tcp(listener, move |mut stream| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let _ = send.send(all);
    });
    ended
}

/// Echoes until the end of input, then closes.
pub fn echo(listener: TcpListener) {
    tcp(listener, |mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    });
}

/// Reads to the end of input and only then answers: how many bytes came, and
/// as many back.
pub fn answer_after_end(listener: TcpListener) {
    tcp(listener, |mut stream| {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).is_ok() {
            let _ = stream.write_all(format!("{}\n", all.len()).as_bytes());
            let _ = stream.write_all(&all);
        }
    });
}

/// Reads the first bytes, then resets the connection.
pub fn reset(listener: TcpListener) {
    tcp(listener, |mut stream| {
        let mut buffer = [0; 16];
        let _ = stream.read(&mut buffer);
        let linger = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        let _ = setsockopt(&stream, sockopt::Linger, &linger);
    });
}

/// Accepts and never reads. The receiver has each connection, so that a test
/// says how long it lasts.
pub fn never_read(listener: TcpListener) -> Receiver<TcpStream> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if send.send(stream).is_err() {
                return;
            }
        }
    });
    receive
}

/// Sends each datagram back to where it came from.
pub fn udp_echo(socket: UdpSocket) {
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..count], from);
        }
    });
}
