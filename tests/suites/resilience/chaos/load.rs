//! A guest with every kind of flow at once, what it saw, and what it costs.

use std::fs;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use odyn_tests::process::until;
use odyn_tests::{Guest, Process, World, serve};

use super::measure::now;
use crate::program;

/// The time after which something counts as hung; no figure of the product.
pub(super) const SOON: Duration = Duration::from_secs(30);

pub(super) const POLICY: &str = "\
version: v1
name: chaos
egress:
  allow:
    - 203.0.113.20
    - '*.dyn.shop.example'
ingress:
  - listen_port: 80
    target_port: 8080
";
/// The address of the host's listener for the app's clients.
pub(super) const INGRESS: &str = "80=192.0.2.2:8000";

/// The load, its servers, and the events of its flows.
pub(super) struct Load {
    events: PathBuf,
    /// The files with events, and how far they are read.
    files: [(PathBuf, u64); 2],
    clients: Option<Process>,
    control: PathBuf,
    /// Connections that the servers have.
    open: Arc<AtomicUsize>,
    /// Whether the server that does not read continues not to read.
    holding: &'static AtomicBool,
    pub(super) seen: Vec<Event>,
}

/// A flow that the app has had.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) kind: String,
    pub(super) began: f64,
    pub(super) ended: f64,
    pub(super) outcome: String,
}

impl Event {
    fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let [kind, began, ended, outcome] = words[..] else {
            panic!("not an event: {line:?}");
        };
        Self {
            kind: kind.into(),
            began: began.parse().expect("seconds"),
            ended: ended.parse().expect("seconds"),
            outcome: outcome.into(),
        }
    }
}

impl Load {
    pub(super) fn new(world: &World) -> Self {
        let events = world.scratch().join("events");
        let client_events = world.dir().join("client-events");
        let mut load = Self {
            files: [(events.clone(), 0), (client_events.clone(), 0)],
            events,
            clients: None,
            control: world.dir().join("control"),
            open: Arc::default(),
            holding: Box::leak(Box::default()),
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
        let files = [&client_events, &load.control].map(|path| path.display().to_string());
        let mut words = vec!["python3", "-c", program!("clients")];
        words.extend(files.iter().map(String::as_str));
        words.extend(["192.0.2.2", "8000"]);
        load.clients = Some(world.internet_spawn("clients", &words));
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

    /// The app.
    pub(super) fn guest(&self) -> Guest {
        let words = [&self.events, &self.control].map(|path| path.display().to_string());
        Guest::python(program!("load"), &words.each_ref().map(String::as_str))
            .limit(Duration::from_secs(120))
    }

    /// Tells the app what to do: `load`, `quiet` or `stop`.
    pub(super) fn set(&self, phase: &str) {
        self.holding.store(phase == "load", Ordering::Release);
        // In one step: the app reads at any moment.
        let next = self.control.with_extension("next");
        fs::write(&next, phase).expect("own directory");
        fs::rename(&next, &self.control).expect("own directory");
    }

    /// Reads the events since the last look.
    pub(super) fn look(&mut self) {
        for (path, read_to) in &mut self.files {
            let Ok(mut file) = File::open(path) else {
                continue;
            };
            let mut text = String::new();
            file.seek(SeekFrom::Start(*read_to)).expect("a file");
            file.read_to_string(&mut text).expect("text");
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            *read_to += whole as u64;
            self.seen.extend(text[..whole].lines().map(Event::parse));
        }
    }

    /// Waits for the first flow of each direction that was begun from `dead` on and carried a byte.
    /// How long after `moment` it did: out of the guest, and into it.
    pub(super) fn recovery(&mut self, moment: f64, dead: f64) -> [f64; 2] {
        let mut from = self.seen.len();
        let mut first = [f64::INFINITY; 2];
        let mut both = || {
            self.look();
            for event in &self.seen[from..] {
                for (kind, first) in ["probe", "client"].iter().zip(&mut first) {
                    if event.kind == *kind && event.outcome == "ok" && event.began >= dead {
                        *first = first.min(event.ended);
                    }
                }
            }
            from = self.seen.len();
            first.iter().all(|first| first.is_finite())
        };
        until(SOON, "new flows that carry a byte", &mut both);
        first.map(|first| first - moment)
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

    /// The app's TCP connections that were accepted.
    pub(super) fn tcp(&self) -> impl Iterator<Item = &Event> {
        let is_tcp = |kind: &str| !matches!(kind, "dns" | "udp" | "client");
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
