//! Bulk transfers: as many bytes as the path carries.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::{Sample, connect, join};

const BUFFER: usize = 256 * 1024;

pub(crate) fn run(
    to: SocketAddr,
    flows: usize,
    seconds: f64,
    one: fn(SocketAddr, Duration) -> io::Result<u64>,
) -> anyhow::Result<Sample> {
    let started = Instant::now();
    let limit = Duration::from_secs_f64(seconds);
    let threads = (0..flows)
        .map(|_| thread::spawn(move || one(to, limit)))
        .collect();
    let bytes = join(threads)?.into_iter().sum();
    Ok(Sample {
        bits_per_second: bytes as f64 * 8.0 / started.elapsed().as_secs_f64(),
        bytes,
        ..Sample::default()
    })
}

/// Sends until `limit` and counts what the server says it received, so that bytes which only sit
/// in a buffer are not counted as carried before they are.
pub(crate) fn up(to: SocketAddr, limit: Duration) -> io::Result<u64> {
    let mut stream = connect(to)?;
    stream.write_all(b"u")?;
    let buffer = vec![0; BUFFER];
    let started = Instant::now();
    while started.elapsed() < limit {
        stream.write_all(&buffer)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total)?;
    Ok(u64::from_be_bytes(total))
}

pub(crate) fn down(to: SocketAddr, limit: Duration) -> io::Result<u64> {
    let mut stream = connect(to)?;
    stream.write_all(b"d")?;
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    let started = Instant::now();
    while started.elapsed() < limit {
        total += stream.read(&mut buffer)? as u64;
    }
    Ok(total)
}
