//! Lends the controlling terminal to the app and takes it back.
//!
//! The app has a process group of its own, so that odyn-net can signal all of it. A terminal
//! accepts reads from one foreground group only, so odyn-net makes the app's group the foreground
//! one. Before odyn-net stops or ends it restores its own, as its shell expects.

use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{Pid, getpgrp, getpid, getsid, tcgetpgrp, tcsetpgrp};

/// The controlling terminal of odyn-net.
#[derive(Debug)]
pub struct Terminal {
    tty: File,
    /// Whether standard input and output are both terminals. If one is a pipe, a pager for example
    /// may read the terminal; the app then gets it only when it asks (SIGTTIN, SIGTTOU).
    interactive: bool,
}

impl Terminal {
    /// Opens the controlling terminal. A guest's first process has none.
    pub fn controlling() -> Option<Self> {
        let tty = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open("/dev/tty")
            .ok()?;
        Some(Self {
            tty,
            interactive: std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
        })
    }

    /// Whether the group of odyn-net is the foreground group, which it may give away.
    pub fn is_ours(&self) -> bool {
        tcgetpgrp(&self.tty).is_ok_and(|group| group == getpgrp())
    }

    /// Makes the app's group the foreground group, if a person may be typing.
    pub fn lend(&self, group: Pid) {
        if self.interactive {
            self.give(group);
        }
    }

    /// Makes the app's group the foreground group, as the app asked for the terminal.
    pub fn give(&self, group: Pid) {
        if self.is_ours() {
            self.set(group);
        }
    }

    /// Takes the terminal back from the app's group.
    pub fn take_back(&self, from: Pid) {
        if tcgetpgrp(&self.tty).is_ok_and(|group| group == from) {
            self.set(getpgrp());
        }
    }

    /// Whether a shell with job control can continue a stopped odyn-net.
    pub fn has_shell(&self) -> bool {
        getsid(None).is_ok_and(|session| session != getpid()) && getpid() != Pid::from_raw(1)
    }

    /// Sets the foreground group with SIGTTOU blocked, which a background group would get.
    fn set(&self, group: Pid) {
        let mut ttou = SigSet::empty();
        ttou.add(Signal::SIGTTOU);
        let Ok(before) = ttou.thread_swap_mask(SigmaskHow::SIG_BLOCK) else {
            return;
        };
        if let Err(error) = tcsetpgrp(&self.tty, group) {
            tracing::debug!(%error, %group, "cannot change the terminal's foreground group");
        }
        // Restoring an earlier signal mask cannot fail.
        let _ = before.thread_set_mask();
    }
}
