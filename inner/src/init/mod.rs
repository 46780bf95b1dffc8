//! Prepares a machine whose first process is odyn-net, and ends it.
//!
//! In an enclave or a microVM no init ran before: file systems are not mounted, names have no
//! resolver, and the kernel's random numbers may not be seeded. odyn-net makes what is missing and
//! nothing else.

mod dev;
pub mod entropy;
mod files;
mod mounts;
pub mod on_exit;

use std::fmt::Display;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::unistd::{Pid, getpid};

/// The reason why a first process cannot prepare the machine.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// /proc is missing and cannot be mounted.
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

/// The steps done and failed, stored until the log is open.
#[derive(Debug, Default)]
pub struct InitReport {
    lines: Vec<(bool, String)>,
    /// Whether odyn-net acts as init. Then it also names the machine.
    active: bool,
}

impl InitReport {
    fn done(&mut self, text: impl Into<String>) {
        self.lines.push((true, text.into()));
    }

    /// Notes a failure that the app can live with.
    fn missed(&mut self, what: impl Display, why: impl Display) {
        self.lines.push((false, format!("{what}: {why}")));
    }

    /// Names the machine when it has no name, and logs all steps.
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

/// Mounts and writes what is missing, and seeds random numbers. Must run first: later paths lead to
/// these mounts, and later secrets come from this seed.
///
/// # Errors
/// /proc is missing and cannot be mounted: no app could be started.
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

/// Whether this process has a mount namespace of its own. A guest that shares the machine's must
/// not write resolv.conf: its resolver exists in the guest's network namespace only.
fn own_mounts() -> bool {
    let namespace = |pid: &str| Some(std::fs::metadata(format!("/proc/{pid}/ns/mnt")).ok()?.ino());
    matches!((namespace("1"), namespace("self")), (Some(first), Some(own)) if first != own)
}
