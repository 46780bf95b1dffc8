//! What all contenders share: the namespaces, the servers, and programs with a deadline.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use odyn_tests::namespace::Namespace;
use odyn_tests::process::{Process, code};
use odyn_tests::world::World;

/// The server's address on the internet.
pub(crate) const SINK: &str = "203.0.113.10";
/// A name of it.
pub(crate) const SINK_NAME: &str = "sink.example";
/// The host's address on the cable to the internet.
pub(crate) const HOST: &str = "192.0.2.2";
/// The server's port for bulk and echo; the two after it are for short and for idle connections.
pub(crate) const PORT: u16 = 5201;
/// Every TCP port of the server.
pub(crate) const PORTS: [u16; 3] = [PORT, PORT + 1, PORT + 2];
/// nginx in the guest: HTTP/1.1, and HTTP/2 without TLS.
pub(crate) const HTTP: [u16; 2] = [8080, 8081];

/// Beyond what a program is told to take.
const GRACE: Duration = Duration::from_secs(60);

/// The namespaces with the servers.
pub(crate) struct Stage {
    _server: Process,
    /// The world; its own host is ended: each contender brings its own.
    pub(crate) world: World,
    /// This program, where every namespace finds it.
    pub(crate) this: String,
    _sweeper: Sweeper,
}

impl Stage {
    /// Builds it.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let policy = format!("version: v1\nname: bench\negress:\n  allow:\n    - {SINK}/32\n");
        let mut world = World::builder()
            .policy(&policy)
            .name(SINK_NAME, &[SINK])
            .start()
            .context("needs root")?;
        let sweeper = Sweeper::new(world.dir())?;
        world.outer().kill();
        for namespace in [world.internet(), world.host()] {
            room(namespace)?;
        }
        let this = world.install(&std::env::current_exe()?);
        let this = this.to_str().context("a path in UTF-8")?.to_owned();
        let address = format!("{SINK}:{PORT}");
        let server = world.internet_spawn("serve", &[&this, "serve", &address]);
        for port in PORTS {
            world.internet().wait_tcp(&format!("{SINK}:{port}"));
        }
        Ok(Self {
            _server: server,
            world,
            this,
            _sweeper: sweeper,
        })
    }

    /// A namespace for a guest, with nothing but a loopback device that is down.
    pub(crate) fn guest(&self) -> anyhow::Result<Namespace> {
        let guest = self.world.guest_namespace();
        room(&guest)?;
        Ok(guest)
    }

    /// A directory of its own for a contender that is started.
    pub(crate) fn dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.world.dir().join(self.world.unique(name));
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }

    /// Starts a program in a namespace, its output in files.
    pub(crate) fn spawn(
        &self,
        namespace: &Namespace,
        name: &str,
        words: &[&str],
        env: &[(String, String)],
    ) -> Process {
        let mut command = namespace.command();
        command.args(words);
        command.env("RUST_BACKTRACE", "0");
        command.envs(env.iter().map(|(name, value)| (name, value)));
        Process::spawn(command, &self.world.unique(name), &self.world.logs(), true)
    }

    /// Runs a program in a namespace to its end, for `seconds` and some grace at most.
    pub(crate) fn run(
        &self,
        namespace: &Namespace,
        words: &[&str],
        seconds: f64,
    ) -> anyhow::Result<String> {
        let name = words.iter().find(|word| **word != self.this);
        let name = name.and_then(|word| word.rsplit('/').next());
        let mut process = self.spawn(namespace, name.unwrap_or("client"), words, &[]);
        wait(&mut process, Duration::from_secs_f64(seconds) + GRACE)
            .with_context(|| words.join(" "))
    }
}

/// Waits for a program's end and returns what it said.
pub(crate) fn wait(process: &mut Process, limit: Duration) -> anyhow::Result<String> {
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = process.ended() {
            break status;
        }
        if Instant::now() > deadline {
            process.kill();
            bail!("still running after {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    ensure!(
        status.success(),
        "exit code {}: {}",
        code(status),
        String::from_utf8_lossy(&process.stderr()).trim()
    );
    Ok(String::from_utf8_lossy(&process.stdout()).into_owned())
}

/// Waits until it is so; an error after `limit`.
pub(crate) fn until(
    limit: Duration,
    what: &str,
    mut done: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    while !done() {
        ensure!(
            Instant::now() < deadline,
            "waited {limit:?} in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Room for tens of thousands of connections to one address; the same for everyone.
fn room(namespace: &Namespace) -> anyhow::Result<()> {
    namespace.enter(|| -> anyhow::Result<()> {
        for (name, value) in [
            ("ip_local_port_range", "10000 64999"),
            ("tcp_tw_reuse", "1"),
        ] {
            let path = format!("/proc/sys/net/ipv4/{name}");
            std::fs::write(&path, value).with_context(|| path.clone())?;
        }
        Ok(())
    })
}

/// Removes the world's directory when this program has gone without doing so.
struct Sweeper(Child);

impl Sweeper {
    fn new(dir: &Path) -> anyhow::Result<Self> {
        let child = Command::new("setsid")
            .args([
                "sh",
                "-c",
                "cat >/dev/null; sleep 1; rm -rf -- \"$1\"",
                "sh",
            ])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("setsid of util-linux")?;
        Ok(Self(child))
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        // The directory has gone by now: this only ends the shell.
        drop(self.0.stdin.take().map(|mut pipe| pipe.flush()));
        let _ = self.0.wait();
    }
}

/// How many files a process may have open here.
pub(crate) fn file_limit() -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(_, hard)| hard);
    usize::try_from(hard).unwrap_or(usize::MAX)
}
