//! What a first process does before anything else runs, and the last thing it does.
//!
//! In an enclave or a microVM nobody was here before: file systems are not mounted, names have no
//! resolver, and the kernel's random numbers may not be seeded. Only what is missing is made.

mod dev;
pub mod entropy;
mod files;
mod mounts;
pub mod on_exit;

use std::fmt::Display;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::unistd::{Pid, getpid};

/// Why a first process cannot prepare the machine.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is no /proc.
    #[error("cannot mount /proc, without which no app can be started: {0}")]
    Proc(#[source] io::Error),
}

/// `--init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Init {
    /// When odyn-net is the first process of its PID namespace.
    #[default]
    Auto,
    /// In any case.
    Yes,
    /// Never.
    No,
}

/// What was done and what was not, kept until there is a log to say it in.
#[derive(Debug, Default)]
pub struct InitReport {
    lines: Vec<(bool, String)>,
    /// Whether we are an init: then the name of the machine is our business too.
    active: bool,
}

impl InitReport {
    fn done(&mut self, text: impl Into<String>) {
        self.lines.push((true, text.into()));
    }

    /// Something is missing that the program can live without.
    fn missed(&mut self, what: impl Display, why: impl Display) {
        self.lines.push((false, format!("{what}: {why}")));
    }

    /// Names the machine when it has no name, and logs everything.
    pub fn finish(mut self, name: Option<&str>) {
        if self.active {
            files::host_name(name, &mut self);
        }
        for (done, line) in self.lines {
            match done {
                true => tracing::info!("init: {line}"),
                false => tracing::warn!("init: {line}"),
            }
        }
    }
}

/// Makes what is missing. Must come first: it mounts what paths of ours may lead to, and seeds what
/// secrets are drawn from.
///
/// # Errors
/// There is no /proc and none can be mounted: the program could not be started.
pub fn prepare(init: Init) -> Result<InitReport, InitError> {
    let mut report = InitReport {
        active: match init {
            Init::Auto => getpid() == Pid::from_raw(1),
            Init::Yes => true,
            Init::No => false,
        },
        ..InitReport::default()
    };
    if report.active {
        mounts::all(&mut report).map_err(InitError::Proc)?;
        files::hosts(&mut report);
    }
    if init != Init::No {
        entropy::seed(&mut report);
        if report.active || own_mounts() {
            files::resolver(&mut report);
        }
    }
    Ok(report)
}

/// Whether our files are not the machine's: as a guest among others on a machine we must not give
/// the machine a resolver that exists in our network namespace only.
fn own_mounts() -> bool {
    let namespace = |pid: &str| Some(std::fs::metadata(format!("/proc/{pid}/ns/mnt")).ok()?.ino());
    matches!((namespace("1"), namespace("self")), (Some(first), Some(own)) if first != own)
}
