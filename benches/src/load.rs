//! The load: a server, and clients that measure. They run as programs inside the namespaces and
//! know nothing of odyn-net.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde::{Deserialize, Serialize};

const BUFFER: usize = 256 * 1024;
const SHORT_SERVERS: usize = 64;
const HOLD: Duration = Duration::from_secs(120);

/// What one client measured; fields that do not apply are zero.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Payload bits per second.
    #[serde(default)]
    pub(crate) bits_per_second: f64,
    /// Payload bytes moved.
    #[serde(default)]
    pub(crate) bytes: u64,
    /// Operations per second.
    #[serde(default)]
    pub(crate) per_second: f64,
    /// Median, microseconds.
    #[serde(default)]
    pub(crate) p50_us: f64,
    /// 99th percentile, microseconds.
    #[serde(default)]
    pub(crate) p99_us: f64,
}

/// A client or the server.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Load {
    /// Serves all clients.
    Serve { address: SocketAddr },
    /// Sends for some seconds on several connections.
    Up {
        to: SocketAddr,
        flows: usize,
        seconds: f64,
    },
    /// Receives for some seconds on several connections.
    Down {
        to: SocketAddr,
        flows: usize,
        seconds: f64,
    },
    /// Sends 64 bytes and waits for them, again and again.
    PingPong { to: SocketAddr, times: usize },
    /// Connects, exchanges one byte, closes, with several clients at once.
    Short {
        to: SocketAddr,
        clients: usize,
        seconds: f64,
    },
    /// Opens idle connections, says `ready`, and holds them.
    Idle { to: SocketAddr, flows: usize },
    /// Opens connections, writes to each, says the time, and exits.
    Exit {
        to: SocketAddr,
        flows: usize,
        bytes: usize,
    },
}

impl Load {
    /// Runs it; clients print a [`Sample`] as JSON.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let sample = match self {
            Load::Serve { address } => return serve(address),
            Load::Idle { to, flows } => return idle(to, flows),
            Load::Exit { to, flows, bytes } => return crate::drain::exit(to, flows, bytes),
            Load::Up { to, flows, seconds } => bulk(to, flows, seconds, up)?,
            Load::Down { to, flows, seconds } => bulk(to, flows, seconds, down)?,
            Load::PingPong { to, times } => ping_pong(to, times)?,
            Load::Short {
                to,
                clients,
                seconds,
            } => short(to, clients, seconds)?,
        };
        println!("{}", serde_json::to_string(&sample)?);
        Ok(())
    }
}

fn serve(address: SocketAddr) -> anyhow::Result<()> {
    serve_short(short_port(address))?;
    for stream in TcpListener::bind(address)?.incoming() {
        let Ok(stream) = stream else { continue };
        // Small stacks: thousands of idle connections are one of the measurements.
        thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || drop(answer(stream)))?;
    }
    Ok(())
}

/// Short connections have a port of their own, where no thread is made for each.
fn short_port(mut address: SocketAddr) -> SocketAddr {
    address.set_port(address.port() + 1);
    address
}

fn serve_short(address: SocketAddr) -> anyhow::Result<()> {
    let listener = Arc::new(TcpListener::bind(address)?);
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

fn bulk(
    to: SocketAddr,
    flows: usize,
    seconds: f64,
    one: fn(SocketAddr, Duration) -> io::Result<u64>,
) -> anyhow::Result<Sample> {
    let started = Instant::now();
    let limit = Duration::from_secs_f64(seconds);
    let threads: Vec<_> = (0..flows)
        .map(|_| thread::spawn(move || one(to, limit)))
        .collect();
    let mut bytes = 0;
    for thread in threads {
        bytes += thread
            .join()
            .map_err(|_| anyhow::anyhow!("a client panicked"))??;
    }
    Ok(Sample {
        bits_per_second: bytes as f64 * 8.0 / started.elapsed().as_secs_f64(),
        bytes,
        ..Sample::default()
    })
}

/// Sends until `limit` and counts what the server says it received, so that bytes which only sit
/// in a buffer are not counted as carried before they are.
fn up(to: SocketAddr, limit: Duration) -> io::Result<u64> {
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

fn down(to: SocketAddr, limit: Duration) -> io::Result<u64> {
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

fn ping_pong(to: SocketAddr, times: usize) -> anyhow::Result<Sample> {
    let mut stream = connect(to)?;
    stream.write_all(b"e")?;
    stream.read_exact(&mut [0])?;
    let mut samples = Vec::with_capacity(times);
    let mut buffer = [7; 64];
    for _ in 0..times {
        let started = Instant::now();
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer)?;
        samples.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(quantiles(samples))
}

fn short(to: SocketAddr, clients: usize, seconds: f64) -> anyhow::Result<Sample> {
    let to = short_port(to);
    let started = Instant::now();
    let limit = Duration::from_secs_f64(seconds);
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            thread::spawn(move || -> io::Result<Vec<f64>> {
                let mut samples = Vec::new();
                while started.elapsed() < limit {
                    let one = Instant::now();
                    let mut stream = connect(to)?;
                    stream.write_all(b"e")?;
                    stream.read_exact(&mut [0])?;
                    samples.push(one.elapsed().as_secs_f64() * 1e6);
                }
                Ok(samples)
            })
        })
        .collect();
    let mut samples = Vec::new();
    for thread in threads {
        samples.extend(
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??,
        );
    }
    let per_second = samples.len() as f64 / started.elapsed().as_secs_f64();
    Ok(Sample {
        per_second,
        ..quantiles(samples)
    })
}

fn idle(to: SocketAddr, flows: usize) -> anyhow::Result<()> {
    let mut held = Vec::with_capacity(flows);
    for _ in 0..flows {
        let mut stream = connect(to)?;
        stream.write_all(b"e")?;
        stream.read_exact(&mut [0])?;
        held.push(stream);
    }
    println!("ready");
    io::stdout().flush()?;
    // The orchestrator ends this program; the limit is for the case that it cannot.
    thread::sleep(HOLD);
    Ok(())
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn quantiles(mut samples: Vec<f64>) -> Sample {
    samples.sort_by(f64::total_cmp);
    let at = |q: f64| {
        let index = (samples.len() as f64 * q) as usize;
        samples
            .get(index.min(samples.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0.0)
    };
    Sample {
        p50_us: at(0.5),
        p99_us: at(0.99),
        ..Sample::default()
    }
}
