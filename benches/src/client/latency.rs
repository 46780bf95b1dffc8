//! How long 64 bytes take there and back.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use std::{io, thread};

use super::{Sample, bulk, connect, join, quantiles};

/// For bulk flows to fill what there is to fill.
const FILL: Duration = Duration::from_millis(200);

pub(crate) fn ping_pong(to: SocketAddr, seconds: f64) -> anyhow::Result<Sample> {
    Ok(quantiles(exchange(to, Duration::from_secs_f64(seconds))?))
}

pub(crate) fn beside(to: SocketAddr, flows: usize, seconds: f64) -> anyhow::Result<Sample> {
    let limit = Duration::from_secs_f64(seconds);
    let threads = (0..flows)
        .map(|_| thread::spawn(move || bulk::up(to, limit + FILL * 2)))
        .collect();
    thread::sleep(FILL);
    let samples = exchange(to, limit)?;
    join(threads)?;
    Ok(quantiles(samples))
}

fn exchange(to: SocketAddr, limit: Duration) -> io::Result<Vec<f64>> {
    let mut stream = connect(to)?;
    stream.write_all(b"e")?;
    stream.read_exact(&mut [0])?;
    let mut samples = Vec::new();
    let mut buffer = [7; 64];
    let began = Instant::now();
    while began.elapsed() < limit {
        let started = Instant::now();
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer)?;
        samples.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(samples)
}
