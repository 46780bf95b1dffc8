//! Namespaces without names: each is held by a process that dies with us.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Backlog, listen};
use nix::unistd::Pid;

use crate::process::until;

/// A PID and mount namespace: whatever runs in it dies with it, and it dies
/// with the thread that made it.
#[derive(Debug)]
pub struct Space {
    holder: Child,
    init: Pid,
}

impl Space {
    /// Makes one.
    ///
    /// # Panics
    /// When the kernel or util-linux refuses.
    #[expect(
        clippy::new_without_default,
        reason = "it starts processes: nothing to do by default"
    )]
    pub fn new() -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare"]);
        command.args(["--mount", "--propagation", "private"]);
        command.args(["--pid", "--fork", "--kill-child", "--"]);
        let (holder, init) = hold(command);
        Self { holder, init }
    }

    /// A command that enters this space, in a network namespace of its own.
    pub fn unshare_net(&self) -> Command {
        let mut command = self.enter();
        command.args(["unshare", "--net", "--mount", "--propagation", "private"]);
        command.arg("--");
        command
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter"]);
        command.args(["--target", &self.init.to_string(), "--mount", "--pid"]);
        command.arg("--");
        command
    }

    /// Makes a network and mount namespace in this space.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn namespace(&self) -> Namespace {
        let (holder, pid) = hold(self.unshare_net());
        Namespace { holder, pid }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // The kernel kills everything in a PID namespace with its first
        // process; unshare then reaps that. Files are safe to remove after it.
        if kill(self.init, Signal::SIGKILL).is_err() {
            let _ = self.holder.kill();
        }
        let _ = self.holder.wait();
    }
}

/// Starts a process that only holds the namespaces it is in, and tells its id
/// as seen from here: `unshare` or `nsenter` forked it into the PID namespace.
fn hold(mut command: Command) -> (Child, Pid) {
    const SCRIPT: &str = "mount -t proc proc /proc && echo held && exec sleep infinity";
    let mut child = command
        .args(["sh", "-c", SCRIPT])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("setpriv, unshare and nsenter of util-linux are there");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("the holder speaks");
    if line != "held\n" {
        let mut why = String::new();
        let _ = child
            .stderr
            .take()
            .map(|mut pipe| pipe.read_to_string(&mut why));
        panic!("no namespace: is this root, with CAP_SYS_ADMIN? {why}");
    }
    let own = Pid::from_raw(child.id().cast_signed());
    let pid = crate::process::children(own)
        .first()
        .copied()
        .expect("the holder runs");
    (child, pid)
}

/// A command that runs in the namespaces of a process.
pub(crate) fn command_in(pid: Pid) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "nsenter"]);
    command.args(["--target", &pid.to_string()]);
    command.args(["--net", "--mount", "--pid", "--"]);
    command
}

/// A network namespace with its own mounts.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
    pid: Pid,
}

impl Namespace {
    /// A command that runs in the namespace: append the program and its words.
    pub fn command(&self) -> Command {
        command_in(self.pid)
    }

    /// Runs a closure on a thread that is in this network namespace. Sockets
    /// that it makes stay in the namespace wherever they are used.
    ///
    /// # Panics
    /// When the namespace has gone, or the closure panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/proc/{}/ns/net", self.pid);
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let file = File::open(&path).expect("the namespace is there");
                    setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter it");
                    work()
                })
                .join()
                .expect("the closure returns")
        })
    }

    /// A listener in the namespace.
    ///
    /// # Panics
    /// When the address can't be bound.
    pub fn listen(&self, address: &str) -> TcpListener {
        self.enter(|| {
            let listener = TcpListener::bind(address)
                .unwrap_or_else(|error| panic!("listen {address}: {error}"));
            // The 128 of the standard library overflow when hundreds of clients connect in one go:
            // the kernel then drops what the clients that exited had to say, with us or without.
            let backlog = Backlog::new(4096).expect("a backlog");
            listen(&listener, backlog).expect("a longer backlog");
            listener
        })
    }

    /// A UDP socket in the namespace.
    ///
    /// # Panics
    /// When the address can't be bound.
    pub fn udp(&self, address: &str) -> UdpSocket {
        self.enter(|| {
            UdpSocket::bind(address).unwrap_or_else(|error| panic!("bind {address}: {error}"))
        })
    }

    /// Waits until something accepts TCP connections there.
    ///
    /// # Panics
    /// When nothing does for half a minute.
    pub fn wait_tcp(&self, address: &str) {
        let address: SocketAddr = address.parse().expect("an address and a port");
        self.enter(|| {
            until(Duration::from_secs(30), &format!("{address}"), || {
                TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
            });
        });
    }

    /// Runs `ip -batch` with these lines.
    ///
    /// # Panics
    /// When a line fails.
    pub fn ip(&self, lines: &str) {
        let mut child = Command::new("nsenter")
            .args(["--target", &self.pid.to_string(), "--net", "--"])
            .args(["ip", "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("nsenter and ip are there");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(lines.as_bytes()).expect("ip reads");
        drop(stdin);
        let status = child.wait().expect("a child");
        assert!(status.success(), "ip failed on:\n{lines}");
    }

    /// The holder's process id: `ip link … netns PID` takes it.
    pub fn pid(&self) -> Pid {
        self.pid
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = self.holder.wait();
    }
}
