//! The contenders: each way to carry a flow that is measured.

pub(crate) mod between;
mod direct;
mod gvproxy;
mod haproxy;
mod nginx;
pub(crate) mod ours;
mod pair;
mod pasta;
mod socat;

use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use odyn_tests::namespace::Namespace;
use odyn_tests::process::Process;

use self::between::Link;
use self::haproxy::{Haproxy, Splice};
use crate::procs;
use crate::stage::Stage;

/// The kind of a contender; tables and targets are grouped by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Family {
    /// The cable itself.
    Direct,
    /// odyn-net and enclaver-outer.
    Ours,
    /// Two proxies with a Unix socket between them.
    Pair,
    /// A network stack in user space.
    UserMode,
}

/// A way from the guest to the internet and back.
pub(crate) trait Contender {
    /// The name in tables and on the command line.
    fn name(&self) -> &str;

    /// The kind.
    fn family(&self) -> Family;

    /// The tools that are missing here to run it.
    fn missing(&self) -> Option<String>;

    /// Starts it; `number` tells it apart from the others that run on the same host.
    fn start(&self, stage: &Stage, number: u16) -> anyhow::Result<Running>;

    /// Milliseconds from the start of a guest of its own to its app, and to the first
    /// byte that the app gets.
    fn start_times(&self, _stage: &Stage) -> anyhow::Result<[f64; 2]> {
        anyhow::bail!("{} starts no app", self.name())
    }
}

/// A contender that runs. It ends when this is dropped.
pub(crate) struct Running {
    // Dropped in this order: the processes before the namespace that they are in.
    pub(crate) guest_half: Vec<Process>,
    pub(crate) host_half: Vec<Process>,
    pub(crate) app: Option<Process>,
    /// The namespace of its programs; `None` is the host itself.
    pub(crate) guest: Option<Namespace>,
    /// The addresses at which the internet's clients reach nginx in the guest: HTTP/1.1 and HTTP/2.
    pub(crate) http: [String; 2],
    /// A resolver that answers programs in the guest.
    pub(crate) resolver: Option<String>,
    /// Whether the contender carries UDP.
    pub(crate) udp: bool,
    /// Files that one flow takes in a half.
    pub(crate) files_per_flow: usize,
}

impl Running {
    /// The namespace of its programs.
    pub(crate) fn space<'a>(&'a self, stage: &'a Stage) -> &'a Namespace {
        self.guest.as_ref().unwrap_or_else(|| stage.world.host())
    }

    /// CPU seconds of guest and host so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        procs::cpu_seconds(&pids(self.guest_half.iter().chain(&self.host_half)))
    }

    /// Resident bytes of the half in the guest and of that on the host.
    pub(crate) fn resident(&self) -> [u64; 2] {
        [&self.guest_half, &self.host_half].map(|half| procs::resident(&pids(half)))
    }

    /// Whether it has processes whose memory can be measured.
    pub(crate) fn has_processes(&self) -> bool {
        !(self.guest_half.is_empty() && self.host_half.is_empty())
    }

    /// The last line that each of its processes wrote to its standard error.
    pub(crate) fn last_words(&self) -> String {
        let mut words = String::new();
        for process in self
            .guest_half
            .iter()
            .chain(&self.host_half)
            .chain(&self.app)
        {
            let said = process.stderr();
            if let Some(line) = String::from_utf8_lossy(&said).lines().last() {
                words.push_str(&format!("; it said: {line}"));
            }
        }
        words
    }

    /// Starts nginx in the guest, if it does not run yet.
    pub(crate) fn serve_http(&mut self, stage: &Stage) -> anyhow::Result<()> {
        if self.app.is_none() {
            self.app = Some(nginx::app(stage, self.space(stage))?);
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A killed process leaves its workers: they go first.
        let all = self.guest_half.iter().chain(&self.host_half);
        procs::kill(&pids(all.chain(&self.app)));
    }
}

fn pids<'a>(processes: impl IntoIterator<Item = &'a Process>) -> Vec<Pid> {
    processes.into_iter().filter_map(Process::pid).collect()
}

/// Every contender: ours by these variants, and who speaks more than Unix sockets by these links.
pub(crate) fn all(variants: &[ours::Ours], links: &[Link]) -> Vec<Box<dyn Contender>> {
    let mut all: Vec<Box<dyn Contender>> = vec![Box::new(direct::Direct)];
    for link in links {
        for variant in variants {
            all.push(Box::new(variant.clone().over(*link)));
        }
    }
    for splice in [Splice::Never, Splice::Auto, Splice::Always] {
        all.push(Box::new(Haproxy { splice }));
    }
    all.push(Box::new(nginx::Nginx));
    for link in links {
        all.push(Box::new(socat::Socat::over(*link)));
    }
    all.push(Box::new(pasta::Pasta));
    all.push(Box::new(gvproxy::Gvproxy));
    all
}

/// An executable in the usual places.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/usr/local/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// The message when an executable is missing.
fn lacks(name: &str, package: &str) -> Option<String> {
    match find(name) {
        Some(_) => None,
        None => Some(format!("no `{name}` here (Debian package {package})")),
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
