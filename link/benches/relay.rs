//! TCP → relay → link → relay → TCP, beside the same load without anything between.
//!
//! The halves are processes of their own (this program started again), so that their CPU time and
//! memory can be told from the load's. Everything is on loopback and a Unix socket.
//!
//! `cargo bench -p odyn-link --bench relay`; `ODYN_BENCH_SECONDS` is the length of each
//! measurement (2), `ODYN_TUNE` sets knobs for both halves: `max_frame=65536,connections=2`.
#![allow(missing_docs, clippy::print_stdout)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use bytes::Bytes;
use odyn_link::drain::Trigger;
use odyn_link::{
    Counters, Handler, HostLanes, HostLink, HostLinkConfig, LaneMode, ListenOptions, Listener,
    Peer, Preamble, ServerConfig, Tuning, read_preamble, relay, serve,
};
use odyn_proto::{Endpoint, Refusal, Target, TargetHost};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CHUNK: usize = 256 * 1024;
const IDLE_FLOWS: usize = 5000;

fn main() {
    raise_file_limit();
    match env::var("ODYN_BENCH_ROLE").as_deref() {
        Ok("host") => return host(),
        Ok("guest") => return guest(),
        _ => {}
    }
    // `cargo test --all-targets` starts benches without this: just see that it works.
    let measured = env::args().any(|arg| arg == "--bench");
    let seconds = env::var("ODYN_BENCH_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(2.0);
    let length = Duration::from_secs_f64(if measured { seconds } else { 0.05 });

    let sink = sink();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link.sock");
    let host = Half::start("host", &path.display().to_string(), sink.port());
    let guest = Half::start("guest", &path.display().to_string(), sink.port());
    let halves = [&host, &guest];
    let ways = [("direct", sink), ("link", guest.address)];

    println!("knobs: {:?}", tuned());
    println!("\nGbit/s, in brackets CPU seconds of both halves per GB");
    println!("{:<12}{:>16}{:>22}{:>10}", "", "direct", "link", "ratio");
    for (name, kind, flows) in [
        ("up 1", UP, 1),
        ("up 16", UP, 16),
        ("down 1", DOWN, 1),
        ("down 16", DOWN, 16),
    ] {
        let [direct, linked] = ways.map(|(_, to)| bulk(to, kind, flows, length, &halves));
        println!(
            "{name:<12}{:>16.1}{:>14.1} ({:.2}){:>11.2}",
            direct.0,
            linked.0,
            linked.1,
            linked.0 / direct.0
        );
    }

    println!("\nping-pong of 64 bytes, microseconds, p50 / p99");
    for (name, bulks) in [("idle", 0), ("beside 16 up", 16)] {
        let [direct, linked] = ways.map(|(_, to)| ping_pong(to, bulks, length));
        println!(
            "{name:<14}direct {:>8.0} / {:<8.0} link {:>8.0} / {:<8.0}",
            direct.0, direct.1, linked.0, linked.1
        );
    }

    println!("\nshort connections per second, 64 clients");
    for (name, to) in ways {
        println!("{name:<8}{:>10.0}", short(to, length));
    }

    let flows = if measured { idle_flows() } else { 50 };
    let before = halves.map(Half::resident);
    let held: Vec<TcpStream> = (0..flows).map(|_| open(guest.address, PING)).collect();
    for mut flow in &held {
        flow.write_all(&[0; 64]).unwrap();
        flow.read_exact(&mut [0; 64]).unwrap();
    }
    let after = halves.map(Half::resident);
    let per_flow = |i: usize| (after[i].saturating_sub(before[i])) as f64 / flows as f64;
    println!("\nresident memory per idle flow, of {flows}, bytes");
    println!("host {:.0}, guest {:.0}", per_flow(0), per_flow(1));
}

/// The load holds two sockets of each flow; the link has room for so many.
fn idle_flows() -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let (tuning, connections) = tuned();
    // TCP keeps away from the first connection.
    let room = tuning.max_streams() as usize * (connections - 1).max(1);
    IDLE_FLOWS.min((limit as usize - 500) / 2).min(room)
}

fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

// What the sink shall do, as the first byte of a connection.
const UP: u8 = b'u';
const DOWN: u8 = b'd';
const PING: u8 = b'p';
const SHORT: u8 = b's';

fn sink() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let socket = socket.unwrap();
            // Idle flows are many: small stacks.
            thread::Builder::new()
                .stack_size(64 * 1024)
                .spawn(|| sink_one(socket))
                .unwrap();
        }
    });
    address
}

fn sink_one(mut socket: TcpStream) {
    let mut kind = [0];
    if socket.read_exact(&mut kind).is_err() {
        return;
    }
    socket.set_nodelay(true).unwrap();
    match kind[0] {
        UP => {
            let mut buf = vec![0; CHUNK];
            while socket.read(&mut buf).is_ok_and(|n| n > 0) {}
        }
        DOWN => {
            let buf = vec![7; CHUNK];
            while socket.write_all(&buf).is_ok() {}
        }
        PING => {
            let mut buf = [0; 64];
            while socket.read_exact(&mut buf).is_ok() && socket.write_all(&buf).is_ok() {}
        }
        _ => {
            let _ = socket.write_all(b"bye");
        }
    }
}

fn open(to: SocketAddr, kind: u8) -> TcpStream {
    let mut socket = TcpStream::connect(to).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.write_all(&[kind]).unwrap();
    socket
}

struct Bulk {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    threads: Vec<(TcpStream, thread::JoinHandle<()>)>,
}

impl Bulk {
    fn start(to: SocketAddr, kind: u8, flows: usize) -> Self {
        let (stop, bytes) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let threads = (0..flows)
            .map(|_| {
                let mut socket = open(to, kind);
                let held = socket.try_clone().unwrap();
                let (stop, bytes) = (Arc::clone(&stop), Arc::clone(&bytes));
                let run = move || {
                    let mut buf = vec![9; CHUNK];
                    while !stop.load(Ordering::Relaxed) {
                        let moved = if kind == UP {
                            socket.write(&buf)
                        } else {
                            socket.read(&mut buf)
                        };
                        match moved {
                            Ok(n) if n > 0 => bytes.fetch_add(n as u64, Ordering::Relaxed),
                            _ => return,
                        };
                    }
                };
                (held, thread::spawn(run))
            })
            .collect();
        Self {
            stop,
            bytes,
            threads,
        }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for (socket, thread) in self.threads {
            let _ = socket.shutdown(std::net::Shutdown::Both);
            thread.join().unwrap();
        }
    }
}

/// Gbit/s, and CPU seconds of the halves per GB.
fn bulk(to: SocketAddr, kind: u8, flows: usize, length: Duration, halves: &[&Half]) -> (f64, f64) {
    let load = Bulk::start(to, kind, flows);
    thread::sleep(length / 4);
    let cpu = || halves.iter().map(|half| half.cpu()).sum::<f64>();
    let (start, bytes, before) = (Instant::now(), load.bytes.load(Ordering::Relaxed), cpu());
    thread::sleep(length);
    let moved = (load.bytes.load(Ordering::Relaxed) - bytes) as f64;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu() - before);
    load.end();
    (moved * 8.0 / seconds / 1e9, cpu / (moved / 1e9))
}

fn ping_pong(to: SocketAddr, bulks: usize, length: Duration) -> (f64, f64) {
    let load = Bulk::start(to, UP, bulks);
    thread::sleep(length / 4);
    let mut socket = open(to, PING);
    let (start, mut times, mut buf) = (Instant::now(), Vec::new(), [0; 64]);
    while start.elapsed() < length {
        let sent = Instant::now();
        socket.write_all(&buf).unwrap();
        socket.read_exact(&mut buf).unwrap();
        times.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    load.end();
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn short(to: SocketAddr, length: Duration) -> f64 {
    let start = Instant::now();
    let clients: Vec<_> = (0..64)
        .map(|_| {
            thread::spawn(move || {
                let mut count = 0;
                while start.elapsed() < length {
                    let mut got = Vec::new();
                    open(to, SHORT).read_to_end(&mut got).unwrap();
                    assert_eq!(got, b"bye");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let count: u64 = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .sum();
    count as f64 / start.elapsed().as_secs_f64()
}

/// One of the halves, as a process.
struct Half {
    child: Child,
    address: SocketAddr,
}

impl Half {
    fn start(role: &str, path: &str, port: u16) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .env("ODYN_BENCH_ROLE", role)
            .env("ODYN_BENCH_SOCKET", path)
            .env("ODYN_BENCH_PORT", port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 5];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .unwrap();
        let port = std::str::from_utf8(&line).unwrap().parse().unwrap();
        Self {
            child,
            address: (Ipv4Addr::LOCALHOST, port).into(),
        }
    }

    /// Seconds of CPU time so far.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        ticks as f64 / 100.0
    }

    /// Bytes of resident memory.
    fn resident(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The knobs, from the environment.
fn tuned() -> (Tuning, usize) {
    let mut tuning = Tuning::default();
    let mut connections = HostLinkConfig::default().connections;
    let set = env::var("ODYN_TUNE").unwrap_or_default();
    for pair in set.split(',').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').expect("name=value");
        let value: usize = value.parse().expect("a number");
        match name {
            "stream_window" => tuning.stream_window = value as u32,
            "send_buffer" => tuning.send_buffer = value,
            "max_frame" => tuning.max_frame = value as u32,
            "max_read" => tuning.max_read = value,
            "socket_buffer" => tuning.socket_buffer = value,
            "connections" => connections = value,
            "lanes" => {
                tuning.lanes = match value {
                    0 => LaneMode::Never,
                    1 => LaneMode::Auto,
                    _ => LaneMode::Always,
                }
            }
            _ => panic!("unknown knob {name}"),
        }
    }
    (tuning, connections)
}

fn endpoint() -> Endpoint {
    Endpoint::Unix {
        path: env::var("ODYN_BENCH_SOCKET").unwrap().into(),
    }
}

/// Says that it is ready, and ends when the parent does.
fn ready(port: u16) {
    print!("{port:05}");
    std::io::stdout().flush().unwrap();
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

struct Dialler;

impl Handler for Dialler {
    async fn connect_tcp(
        &self,
        target: Target,
        _: &Peer,
    ) -> Result<(tokio::net::TcpStream, SocketAddr), Refusal> {
        let TargetHost::Addresses(list) = &target.host else {
            return Err(Refusal::BadRequest);
        };
        let address = SocketAddr::new(list[0], target.port);
        match tokio::net::TcpStream::connect(address).await {
            Ok(socket) => Ok((socket, address)),
            Err(error) => Err(odyn_link::refusal_from_io(&error)),
        }
    }

    async fn connect_udp(
        &self,
        _: Target,
        _: &Peer,
    ) -> Result<(tokio::net::UdpSocket, SocketAddr), Refusal> {
        Err(Refusal::Internal)
    }

    async fn dns(&self, _: Bytes, _: &Peer) -> Result<Bytes, Refusal> {
        Err(Refusal::Internal)
    }
}

#[tokio::main]
async fn host() {
    let mut config = ServerConfig::default();
    config.tuning = tuned().0;
    let lanes = HostLanes::new(&config.tuning);
    config.lanes = Some(Arc::clone(&lanes));
    let listener = Listener::bind(&endpoint(), ListenOptions::default()).unwrap();
    ready(0);
    loop {
        let (transport, peer) = listener.accept(&config.tuning).await.unwrap();
        let (lanes, config) = (Arc::clone(&lanes), config.clone());
        tokio::spawn(async move {
            match read_preamble(transport, config.tuning.handshake_timeout).await {
                Ok(Preamble::Forward(transport)) => {
                    let drain = Trigger::default().watch();
                    let _ = serve(transport, peer, Arc::new(Dialler), config, drain).await;
                }
                Ok(Preamble::Lane(key, transport)) => {
                    let _ = lanes.serve(transport, key, &config.tuning).await;
                }
                _ => {}
            }
        });
    }
}

#[tokio::main]
async fn guest() {
    let mut config = HostLinkConfig::default();
    (config.tuning, config.connections) = tuned();
    let client = HostLink::new(endpoint(), config);
    let port = env::var("ODYN_BENCH_PORT").unwrap().parse().unwrap();
    let target = Target::address(Ipv4Addr::LOCALHOST, port);
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    ready(listener.local_addr().unwrap().port());
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (client, target) = (client.clone(), target.clone());
        tokio::spawn(async move {
            let opened = client.connect_tcp(&target).await.unwrap();
            relay(socket, opened.flow, Arc::new(Counters::default())).await;
        });
    }
}
