//! The server, and clients that measure. They run as programs inside the namespaces and know
//! nothing of what is between them.

mod ask;
mod bulk;
mod idle;
mod latency;
mod serve;
mod short;
mod start;

use std::io;
use std::net::{SocketAddr, TcpStream};

use clap::Subcommand;
use serde::{Deserialize, Serialize};

/// What one client measured; fields that do not apply are zero.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sample {
    /// Payload bits per second.
    pub(crate) bits_per_second: f64,
    /// Payload bytes moved.
    pub(crate) bytes: u64,
    /// Operations per second.
    pub(crate) per_second: f64,
    /// Median, microseconds.
    pub(crate) p50_us: f64,
    /// 99th percentile, microseconds.
    pub(crate) p99_us: f64,
}

/// A client or the server.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Client {
    /// Serves all clients, on this port and the two after it, TCP and UDP.
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
    PingPong { to: SocketAddr, seconds: f64 },
    /// The same, while other connections of the same program send all they can.
    Beside {
        to: SocketAddr,
        flows: usize,
        seconds: f64,
    },
    /// Connects, exchanges one byte, closes, with several clients at once.
    Short {
        to: SocketAddr,
        clients: usize,
        seconds: f64,
    },
    /// The same, for a number of connections.
    Churn {
        to: SocketAddr,
        clients: usize,
        connections: usize,
    },
    /// Opens idle connections, says `ready`, and holds them.
    Idle { to: SocketAddr, flows: usize },
    /// Sends datagrams of 200 bytes as fast as it can; the server counts.
    Blast {
        to: SocketAddr,
        flows: usize,
        seconds: f64,
    },
    /// Sends datagrams of 200 bytes and counts those that come back.
    Echo {
        to: SocketAddr,
        flows: usize,
        seconds: f64,
    },
    /// Asks a resolver for the same name, and counts the answers.
    Dns {
        to: SocketAddr,
        name: String,
        flows: usize,
        seconds: f64,
    },
    /// Says the time and becomes another program.
    Stamp {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Says the time, exchanges one byte, and says the time again.
    First { to: SocketAddr },
    /// Says `ready`, and does nothing until it is ended.
    Wait,
    /// Opens connections, writes to each, says the time, and exits.
    Exit {
        to: SocketAddr,
        flows: usize,
        bytes: usize,
    },
}

impl Client {
    /// Runs it; most clients print a [`Sample`] as JSON.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let sample = match self {
            Client::Serve { address } => return serve::serve(address),
            Client::Idle { to, flows } => return idle::idle(to, flows),
            Client::Exit { to, flows, bytes } => return crate::drain::exit(to, flows, bytes),
            Client::Stamp { words } => return start::stamp(&words),
            Client::First { to } => return start::first(to),
            Client::Wait => return start::wait(),
            Client::Churn {
                to,
                clients,
                connections,
            } => return short::churn(to, clients, connections),
            Client::Up { to, flows, seconds } => bulk::run(to, flows, seconds, bulk::up)?,
            Client::Down { to, flows, seconds } => bulk::run(to, flows, seconds, bulk::down)?,
            Client::PingPong { to, seconds } => latency::ping_pong(to, seconds)?,
            Client::Beside { to, flows, seconds } => latency::beside(to, flows, seconds)?,
            Client::Short {
                to,
                clients,
                seconds,
            } => short::short(to, clients, seconds)?,
            Client::Blast { to, flows, seconds } => ask::blast(to, flows, seconds)?,
            Client::Echo { to, flows, seconds } => ask::echo(to, flows, seconds)?,
            Client::Dns {
                to,
                name,
                flows,
                seconds,
            } => ask::dns(to, &name, flows, seconds)?,
        };
        println!("{}", serde_json::to_string(&sample)?);
        Ok(())
    }
}

/// Port `more` after the server's first.
fn port_after(mut address: SocketAddr, more: u16) -> SocketAddr {
    address.set_port(address.port() + more);
    address
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Waits for threads that return a result each.
fn join<T, E>(threads: Vec<std::thread::JoinHandle<Result<T, E>>>) -> anyhow::Result<Vec<T>>
where
    anyhow::Error: From<E>,
{
    let mut all = Vec::with_capacity(threads.len());
    for thread in threads {
        let result = thread.join();
        all.push(result.map_err(|_| anyhow::anyhow!("a thread panicked"))??);
    }
    Ok(all)
}

/// A sample of latencies in microseconds.
fn quantiles(mut samples: Vec<f64>) -> Sample {
    samples.sort_by(f64::total_cmp);
    let at = |q: f64| {
        let index = (samples.len() as f64 * q) as usize;
        let index = index.min(samples.len().saturating_sub(1));
        samples.get(index).copied().unwrap_or(0.0)
    };
    Sample {
        p50_us: at(0.5),
        p99_us: at(0.99),
        ..Sample::default()
    }
}
