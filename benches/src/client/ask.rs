//! Datagrams: one way, there and back, and questions to a resolver.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::ensure;

use super::{Sample, join, port_after};

const SIZE: usize = 200;
/// Datagrams of one socket that are on their way: enough to keep all parts busy, few enough to fit
/// every buffer.
const WINDOW: usize = 64;
/// After this long without an answer, what is on its way is taken for lost.
const LOST: Duration = Duration::from_millis(100);

/// Sends as fast as it can; what arrived is what the server says.
pub(crate) fn blast(to: SocketAddr, flows: usize, seconds: f64) -> anyhow::Result<Sample> {
    let limit = Duration::from_secs_f64(seconds);
    let threads = (0..flows)
        .map(|_| thread::spawn(move || blast_one(to, limit)))
        .collect();
    let arrived: u64 = join(threads)?.into_iter().sum();
    Ok(Sample {
        per_second: arrived as f64 / seconds,
        bytes: arrived * SIZE as u64,
        ..Sample::default()
    })
}

fn blast_one(to: SocketAddr, limit: Duration) -> io::Result<u64> {
    let socket = socket(to)?;
    let started = Instant::now();
    while started.elapsed() < limit {
        for _ in 0..16 {
            sent(socket.send(&[7; SIZE]))?;
        }
    }
    socket.set_read_timeout(Some(LOST))?;
    for _ in 0..50 {
        sent(socket.send(b"q"))?;
        let mut count = [0; 8];
        if socket.recv(&mut count).is_ok() {
            return Ok(u64::from_be_bytes(count));
        }
    }
    Err(io::Error::new(
        ErrorKind::TimedOut,
        "no count from the server",
    ))
}

pub(crate) fn echo(to: SocketAddr, flows: usize, seconds: f64) -> anyhow::Result<Sample> {
    windows(port_after(to, 1), flows, seconds, vec![7; SIZE], |answer| {
        answer.len() == SIZE
    })
}

pub(crate) fn dns(
    to: SocketAddr,
    name: &str,
    flows: usize,
    seconds: f64,
) -> anyhow::Result<Sample> {
    // Id, recursion desired, one question: the address of the name.
    let mut query = vec![0x4f, 0x44, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    // No error, and at least one answer.
    let answered = |answer: &[u8]| {
        answer.get(3).is_some_and(|flags| flags & 15 == 0)
            && answer.get(6..8).is_some_and(|count| count != [0, 0])
    };
    windows(to, flows, seconds, query, answered)
}

/// Keeps a window of datagrams on their way on each socket and counts the answers.
fn windows(
    to: SocketAddr,
    flows: usize,
    seconds: f64,
    payload: Vec<u8>,
    good: fn(&[u8]) -> bool,
) -> anyhow::Result<Sample> {
    let limit = Duration::from_secs_f64(seconds);
    let threads = (0..flows)
        .map(|_| {
            let payload = payload.clone();
            thread::spawn(move || window(to, limit, &payload, good))
        })
        .collect();
    let answers: u64 = join(threads)?.into_iter().sum();
    ensure!(answers > 0, "no answer from {to}");
    Ok(Sample {
        per_second: answers as f64 / seconds,
        bytes: answers * payload.len() as u64,
        ..Sample::default()
    })
}

fn window(
    to: SocketAddr,
    limit: Duration,
    payload: &[u8],
    good: fn(&[u8]) -> bool,
) -> io::Result<u64> {
    let socket = socket(to)?;
    socket.set_read_timeout(Some(LOST))?;
    let (mut answers, mut room) = (0, WINDOW);
    let mut buffer = [0; 2048];
    let started = Instant::now();
    while started.elapsed() < limit {
        for _ in 0..room {
            sent(socket.send(payload))?;
        }
        room = match socket.recv(&mut buffer) {
            Ok(length) => {
                answers += u64::from(good(buffer.get(..length).unwrap_or_default()));
                1
            }
            Err(error) if passing(&error) => WINDOW,
            Err(error) => return Err(error),
        };
    }
    Ok(answers)
}

fn socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    Ok(socket)
}

/// A full queue is loss, not an error.
fn sent(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Err(error) if passing(&error) => Ok(()),
        other => other.map(drop),
    }
}

fn passing(error: &io::Error) -> bool {
    let full = nix::libc::ENOBUFS;
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    ) || error.raw_os_error() == Some(full)
}
