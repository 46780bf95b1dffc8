//! Starts the program with nothing but its own rights.
//!
//! odyn-net executes itself with a hidden command; that fresh, single-threaded process gives up
//! its rights and then becomes the program. So no code runs between fork and exec in a process
//! with threads, and none of it needs `unsafe`.

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

/// Why the process did not become the app.
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
        /// What the kernel said.
        source: io::Error,
    },
    /// The app exists and cannot be executed.
    #[error("cannot run {}: {source}", name.display())]
    NotExecutable {
        /// The app.
        name: OsString,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What the hidden command needs to know; it is the command's arguments in this order.
#[derive(Debug, Clone, clap::Args)]
pub struct Launch {
    /// Numeric user id; stays the same when absent.
    #[arg(long)]
    pub uid: Option<u32>,
    /// Numeric group id.
    #[arg(long)]
    pub gid: Option<u32>,
    /// Supplementary groups.
    #[arg(long, value_delimiter = ',')]
    pub groups: Vec<u32>,
    /// Soft limit of open files to restore.
    #[arg(long)]
    pub nofile: Option<u64>,
    /// What to change in the environment; it is in place already when the hidden command runs.
    #[arg(skip)]
    environment: Vec<(&'static str, Option<OsString>)>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

impl Launch {
    /// A launch of `command` as `user`, with the limit of open files that odyn-net itself was
    /// started with.
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

    /// Changes the program's environment: each variable is set, or removed.
    pub fn environment(
        &mut self,
        changes: impl IntoIterator<Item = (&'static str, Option<OsString>)>,
    ) {
        self.environment.extend(changes);
    }

    /// Starts the process that will become the program, as the leader of its own process group,
    /// with this standard output and error.
    ///
    /// Must be called on a thread that lives as long as odyn-net: the kernel kills the program
    /// when the thread that started it ends.
    ///
    /// # Errors
    /// The process could not be made (memory, process limit, /proc not mounted).
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

    /// Gives up all rights and becomes the program. Returns only when that failed.
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
        // Ours alone (see main.rs), and inherited over exec.
        let _ = prctl::set_thp_disable(false);
        if let Some(soft) = self.nofile {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)?;
        }
        // While the capabilities for it are still there.
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
        // Descriptors that our parent left open may lead anywhere, to a vsock socket too.
        close_fds::set_fds_cloexec(3, &[]);
        // When odyn-net is killed, nobody is left to serve the program: it must not linger.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        Ok(())
    }
}
