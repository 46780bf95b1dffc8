//! Bytes that must not get lost: programs that write them, and readers that check them.
//!
//! Both sides know what byte stands at each place, so a checksum is not needed to find a gap.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{io, thread};

/// Length of the block that is repeated: no power of two, so that a lost buffer shows.
const BLOCK: usize = 65_521;

/// A Python function `send(s, total)` that writes the bytes that [`check`] expects.
pub const PYTHON_SEND: &str = "\
import socket, sys, os
BLOCK = bytes((i * 31 + (i >> 8)) & 255 for i in range(65521))
def send(s, total):
    while total > 0:
        part = BLOCK[:total]
        s.sendall(part)
        total -= len(part)
";

/// The bytes and the end that a reader saw.
#[derive(Debug)]
pub struct Received {
    /// Bytes, all of which were the right ones.
    pub bytes: u64,
    /// How it ended: `Ok` for a FIN.
    pub end: io::Result<()>,
}

fn block() -> Vec<u8> {
    (0..BLOCK)
        .map(|i| (i.wrapping_mul(31).wrapping_add(i >> 8) & 255) as u8)
        .collect()
}

/// Reads to the end, at most `rate` bytes in a second, and checks each byte.
///
/// # Panics
/// When a byte is another one than was written at that place.
pub fn check(stream: &mut TcpStream, rate: Option<u64>) -> Received {
    let expected = block();
    let mut buffer = vec![0; 64 * 1024];
    let started = Instant::now();
    let mut bytes = 0u64;
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return Received { bytes, end: Ok(()) },
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Received {
                    bytes,
                    end: Err(error),
                };
            }
        };
        let mut read = &buffer[..count];
        while !read.is_empty() {
            let at = (bytes % BLOCK as u64) as usize;
            let (now, rest) = read.split_at(read.len().min(BLOCK - at));
            assert!(
                now == &expected[at..at + now.len()],
                "other bytes than were written, between {bytes} and {}",
                bytes + now.len() as u64
            );
            bytes += now.len() as u64;
            read = rest;
        }
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
            thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }
}

/// Accepts connections and checks each on a thread of its own; what they saw comes out of the
/// receiver, in the order in which they ended. `hold` keeps each open after its end.
pub fn reader(listener: TcpListener, rate: Option<u64>, hold: bool) -> Receiver<Received> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let send = send.clone();
            thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn(move || {
                    let received = check(&mut stream, rate);
                    let _ = send.send(received);
                    if hold {
                        // Until the test's process ends.
                        std::mem::forget(stream);
                    }
                })
                .expect("a thread");
        }
    });
    receive
}

/// The next connection's bytes, which must have ended with a FIN.
///
/// # Panics
/// When it does not end in two minutes, or with a reset.
#[track_caller]
pub fn whole(readers: &Receiver<Received>) -> u64 {
    let received = readers
        .recv_timeout(Duration::from_secs(120))
        .expect("a connection that ends");
    if let Err(error) = received.end {
        panic!("{} bytes, then {error}", received.bytes);
    }
    received.bytes
}

/// How often the long tests are to be repeated: `ODYN_TEST_REPEAT`, or once.
pub fn repeat() -> usize {
    let asked = std::env::var("ODYN_TEST_REPEAT").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(1)
}
