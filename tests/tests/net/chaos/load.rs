//! A guest with every kind of flow at once, what it saw, and what it costs.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::Pid;
use odyn_tests::process::until;
use odyn_tests::{Guest, World, serve};

use crate::program;

/// What a hang would take; no figure of the product.
pub(super) const SOON: Duration = Duration::from_secs(30);

pub(super) const POLICY: &str = "\
version: v1
name: chaos
egress:
  allow:
    - 203.0.113.20
    - '*.dyn.shop.example'
";

/// The load, its servers, and the events of its flows.
pub(super) struct Load {
    events: PathBuf,
    control: PathBuf,
    /// Connections that the servers have.
    open: Arc<AtomicUsize>,
    /// Whether the server that does not read goes on with that.
    holding: &'static AtomicBool,
    read_to: u64,
    pub(super) seen: Vec<Event>,
}

/// A flow that the program has had.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) kind: String,
    pub(super) began: f64,
    pub(super) ended: f64,
    pub(super) outcome: String,
}

impl Load {
    pub(super) fn new(world: &World) -> Self {
        let load = Self {
            events: world.scratch().join("events"),
            control: world.dir().join("control"),
            open: Arc::default(),
            holding: Box::leak(Box::default()),
            read_to: 0,
            seen: Vec::new(),
        };
        load.set("load");
        for port in [7000, 7001] {
            load.serve(world, port, echo);
        }
        load.serve(world, 7002, read_all);
        let holding = load.holding;
        load.serve(world, 7005, move |stream| {
            hold(&stream, holding);
            read_all(stream);
        });
        load.serve(world, 7003, |mut stream| {
            while stream.write_all(&[0; 65_536]).is_ok() {
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        load.serve(world, 7004, |mut stream| {
            let _ = stream.write_all(b"h");
            read_all(stream);
        });
        serve::udp_echo(world.internet().udp("203.0.113.20:7006"));
        load
    }

    fn serve(
        &self,
        world: &World,
        port: u16,
        work: impl Fn(TcpStream) + Send + Sync + Copy + 'static,
    ) {
        let open = Arc::clone(&self.open);
        let listener = world.internet().listen(&format!("0.0.0.0:{port}"));
        serve::tcp(listener, move |stream| {
            open.fetch_add(1, Ordering::AcqRel);
            work(stream);
            open.fetch_sub(1, Ordering::AcqRel);
        });
    }

    /// The program.
    pub(super) fn guest(&self) -> Guest {
        let words = [&self.events, &self.control].map(|path| path.display().to_string());
        Guest::python(program!("load"), &words.each_ref().map(String::as_str))
            .limit(Duration::from_secs(120))
    }

    /// Tells the program what to do: `load`, `quiet` or `stop`.
    pub(super) fn set(&self, phase: &str) {
        self.holding.store(phase == "load", Ordering::Release);
        // In one step: the program reads at any moment.
        let next = self.control.with_extension("next");
        fs::write(&next, phase).expect("own directory");
        fs::rename(&next, &self.control).expect("own directory");
    }

    /// Reads the events since the last look.
    pub(super) fn look(&mut self) {
        let Ok(mut file) = File::open(&self.events) else {
            return;
        };
        let mut text = String::new();
        file.seek(SeekFrom::Start(self.read_to)).expect("a file");
        file.read_to_string(&mut text).expect("text");
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.read_to += whole as u64;
        for line in text[..whole].lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [kind, began, ended, outcome] = words[..] else {
                panic!("not an event: {line:?}");
            };
            self.seen.push(Event {
                kind: kind.into(),
                began: began.parse().expect("seconds"),
                ended: ended.parse().expect("seconds"),
                outcome: outcome.into(),
            });
        }
    }

    /// Waits for the first flow that was begun from `dead` on and carried a byte; how long after
    /// `moment` it did.
    pub(super) fn recovery(&mut self, moment: f64, dead: f64) -> f64 {
        let mut from = self.seen.len();
        let mut first = f64::INFINITY;
        until(SOON, "a new flow that carries a byte", || {
            self.look();
            for event in &self.seen[from..] {
                if event.kind == "probe" && event.outcome == "ok" && event.began >= dead {
                    first = first.min(event.ended);
                }
            }
            from = self.seen.len();
            first.is_finite()
        });
        first - moment
    }

    /// Waits until the network works.
    pub(super) fn works(&mut self) {
        let now = now();
        self.recovery(now, now);
    }

    /// Closes all flows, and waits until the servers have seen the end of each.
    pub(super) fn quiet(&self) {
        self.set("quiet");
        until(SOON, "the servers' connections to end", || {
            self.open.load(Ordering::Acquire) == 0
        });
    }

    /// Flows of these kinds, each of which is a TCP connection that somebody accepted.
    pub(super) fn tcp(&self) -> impl Iterator<Item = &Event> {
        let is_tcp = |kind: &str| !matches!(kind, "dns" | "udp");
        self.seen.iter().filter(move |event| is_tcp(&event.kind))
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 64];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

fn read_all(mut stream: TcpStream) {
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

/// Reads nothing for as long as it is told, or until the connection is reset.
fn hold(stream: &TcpStream, holding: &AtomicBool) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    while holding.load(Ordering::Acquire) {
        let mut files = [PollFd::new(stream.as_fd(), PollFlags::empty())];
        if poll(&mut files, PollTimeout::from(20u8)) != Ok(0) {
            return;
        }
    }
}

/// Seconds since the epoch, by the clock that the program has too.
pub(super) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs_f64()
}

/// What a process takes of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Footprint {
    pub(super) pss: u64,
    pub(super) files: usize,
    pub(super) threads: usize,
}

impl Footprint {
    /// Of a process that has come to rest: its connections are all there again.
    pub(super) fn at_rest(pid: Pid) -> Self {
        let mut last = Self::of(pid);
        let mut looks = 0;
        until(SOON, "a process to come to rest", || {
            std::thread::sleep(Duration::from_millis(100));
            let now = Self::of(pid);
            looks = if now.files == last.files {
                looks + 1
            } else {
                0
            };
            last = now;
            looks == 10
        });
        last
    }

    /// Of a process; `pss` in KiB.
    pub(super) fn of(pid: Pid) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process");
        let line = text.lines().find(|line| line.starts_with("Pss:"));
        let pss = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        let count =
            |name: &str| fs::read_dir(format!("/proc/{pid}/{name}")).map_or(0, Iterator::count);
        Self {
            pss: pss.expect("a size"),
            files: count("fd"),
            threads: count("task"),
        }
    }
}
