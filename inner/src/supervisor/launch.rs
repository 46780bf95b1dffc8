//! Starts the app with reduced rights.
//!
//! odyn-net executes itself with a hidden command. That new, single-threaded process gives up its
//! rights and then executes the app. So no code runs between fork and exec in a process with
//! threads, and none of it needs `unsafe`.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use caps::CapSet;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};

use crate::supervisor::user::AppUser;
use crate::supervisor::{root_hardening, seccomp};

/// Hidden command of the process that becomes the app; each executable that launches has it.
pub const APP_COMMAND: &str = "__app";

/// The reason why the process did not become the app.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The process could not give up its rights.
    #[error("cannot drop privileges: {0}")]
    Rights(#[source] io::Error),
    /// The command is empty.
    #[error("no app was given")]
    NoCommand,
    /// The app was not found.
    #[error("cannot run {}: {source}", name.display())]
    NotFound {
        /// The app.
        name: OsString,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The app exists and cannot be executed.
    #[error("cannot run {}: {source}", name.display())]
    NotExecutable {
        /// The app.
        name: OsString,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The input of the hidden command, which gets it as arguments in this order.
#[derive(Debug, Clone, clap::Args)]
pub struct Launch {
    /// Numeric user id; without one the app keeps that of odyn-net.
    #[arg(long)]
    pub uid: Option<u32>,
    /// Numeric group id.
    #[arg(long)]
    pub gid: Option<u32>,
    /// Supplementary groups.
    #[arg(long, value_delimiter = ',')]
    pub groups: Vec<u32>,
    /// The soft limit of open files that the app gets.
    #[arg(long)]
    pub nofile: Option<u64>,
    /// Changes to the environment. They are made before the hidden command runs.
    #[arg(skip)]
    environment: Vec<(&'static str, Option<OsString>)>,
    /// The app and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

impl Launch {
    /// Prepares `command` to run as `user`, with the limit of open files that odyn-net was started
    /// with.
    pub fn new(user: Option<&AppUser>, nofile: Option<u64>, command: Vec<OsString>) -> Self {
        Self {
            uid: user.map(|i| i.uid),
            gid: user.map(|i| i.gid),
            groups: user.map(|i| i.groups.clone()).unwrap_or_default(),
            nofile,
            environment: user
                .map(|i| i.environment(|name| std::env::var_os(name)))
                .unwrap_or_default(),
            command,
        }
    }

    /// Adds changes to the app's environment: each variable is set, or removed.
    pub fn environment(
        &mut self,
        changes: impl IntoIterator<Item = (&'static str, Option<OsString>)>,
    ) {
        self.environment.extend(changes);
    }

    /// Starts the process that becomes the app, with this standard output and error. It leads a
    /// process group of its own.
    ///
    /// The caller's thread must live as long as odyn-net: the kernel kills the app when the thread
    /// that started it ends.
    ///
    /// # Errors
    /// The kernel could not start the process (memory, process limit, /proc not mounted).
    pub fn spawn(&self, (stdout, stderr): (Stdio, Stdio)) -> io::Result<Child> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("odyn-net").arg(APP_COMMAND);
        for (flag, value) in [("--uid", self.uid), ("--gid", self.gid)] {
            if let Some(value) = value {
                command.arg(flag).arg(value.to_string());
            }
        }
        if !self.groups.is_empty() {
            let groups: Vec<String> = self.groups.iter().map(u32::to_string).collect();
            command.arg("--groups").arg(groups.join(","));
        }
        if let Some(nofile) = self.nofile {
            command.arg("--nofile").arg(nofile.to_string());
        }
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.arg("--").args(&self.command);
        command.stdout(stdout).stderr(stderr);
        command.process_group(0).spawn()
    }

    /// Gives up all rights and executes the app. Returns only when that failed.
    pub fn become_app(self) -> LaunchError {
        if let Err(error) = self.give_up_rights() {
            return LaunchError::Rights(error);
        }
        let Some((name, arguments)) = self.command.split_first() else {
            return LaunchError::NoCommand;
        };
        let source = Command::new(name).args(arguments).exec();
        let name = name.clone();
        match source.kind() {
            io::ErrorKind::NotFound => LaunchError::NotFound { name, source },
            _ => LaunchError::NotExecutable { name, source },
        }
    }

    fn give_up_rights(&self) -> io::Result<()> {
        // odyn-net switches huge pages off for itself, and exec would pass that on.
        let _ = prctl::set_thp_disable(false);
        if let Some(soft) = self.nofile {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)?;
        }
        // Before the capabilities for this call are gone.
        let root = self.uid.map_or_else(geteuid, Uid::from_raw).is_root();
        if root {
            root_hardening::apply().map_err(io::Error::other)?;
        }
        if let (Some(uid), Some(gid)) = (self.uid, self.gid) {
            let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
            setgroups(&groups)?;
            setgid(Gid::from_raw(gid))?;
            setuid(Uid::from_raw(uid))?;
        }
        // From here on no exec gives a right, be it by set-user-ID, by file capabilities or to
        // root. The bounding set stays as it is on purpose: without it the kernel refuses to
        // execute files that have capabilities, such as ping and many a web server's.
        prctl::set_no_new_privs()?;
        for set in [
            CapSet::Ambient,
            CapSet::Inheritable,
            CapSet::Effective,
            CapSet::Permitted,
        ] {
            caps::clear(None, set).map_err(|error| io::Error::other(error.to_string()))?;
        }
        seccomp::apply(root).map_err(io::Error::other)?;
        // A descriptor inherited from odyn-net's parent may be anything, a vsock socket too.
        close_fds::set_fds_cloexec(3, &[]);
        // Without odyn-net the app has no network, so the kernel kills it when odyn-net is killed.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        Ok(())
    }
}
