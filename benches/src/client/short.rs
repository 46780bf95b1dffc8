//! Connections that carry one byte each way.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use std::{io, thread};

use super::{Sample, connect, join, port_after, quantiles};

pub(crate) fn short(to: SocketAddr, clients: usize, seconds: f64) -> anyhow::Result<Sample> {
    let started = Instant::now();
    let limit = Duration::from_secs_f64(seconds);
    let samples = all(to, clients, move |_| started.elapsed() < limit)?;
    Ok(Sample {
        per_second: samples.len() as f64 / started.elapsed().as_secs_f64(),
        ..quantiles(samples)
    })
}

/// Opens and closes so many connections.
pub(crate) fn churn(to: SocketAddr, clients: usize, connections: usize) -> anyhow::Result<()> {
    let share = connections / clients;
    all(to, clients, move |done| done < share)?;
    Ok(())
}

fn all(
    to: SocketAddr,
    clients: usize,
    goes_on: impl Fn(usize) -> bool + Copy + Send + 'static,
) -> anyhow::Result<Vec<f64>> {
    let to = port_after(to, 1);
    let one = move || -> io::Result<Vec<f64>> {
        let mut samples = Vec::new();
        while goes_on(samples.len()) {
            let started = Instant::now();
            let mut stream = connect(to)?;
            stream.write_all(b"e")?;
            stream.read_exact(&mut [0])?;
            samples.push(started.elapsed().as_secs_f64() * 1e6);
        }
        Ok(samples)
    };
    let threads = (0..clients).map(|_| thread::spawn(one)).collect();
    Ok(join(threads)?.concat())
}
