//! The terminal that odyn-net was started from, if any, and who may read it.
//!
//! The program has a process group of its own, so that signals can be passed to all of it. A
//! terminal reads for one group only: the program must be given it, and the shell that started
//! odyn-net expects to find it where it was.

use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{Pid, getpgrp, getpid, getsid, tcgetpgrp, tcsetpgrp};

/// The controlling terminal.
#[derive(Debug)]
pub struct Terminal {
    tty: File,
    /// Somebody sits in front of it, and nothing but us is between: no pipe to a pager, which
    /// would lose the terminal. A program in a pipe gets it when it asks.
    interactive: bool,
}

impl Terminal {
    /// The terminal that controls us. A guest's first process has none.
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

    /// Whether it is there for our group, so that we may give it away.
    pub fn is_ours(&self) -> bool {
        tcgetpgrp(&self.tty).is_ok_and(|group| group == getpgrp())
    }

    /// Gives it to the program, if somebody sits in front of it.
    pub fn lend(&self, group: Pid) {
        if self.interactive {
            self.give(group);
        }
    }

    /// Gives it to the program, which asked for it.
    pub fn give(&self, group: Pid) {
        if self.is_ours() {
            self.set(group);
        }
    }

    /// Takes it back from the program's group.
    pub fn take_back(&self, from: Pid) {
        if tcgetpgrp(&self.tty).is_ok_and(|group| group == from) {
            self.set(getpgrp());
        }
    }

    /// Whether somebody can continue us when we are stopped: a shell with job control.
    pub fn has_shell(&self) -> bool {
        getsid(None).is_ok_and(|session| session != getpid()) && getpid() != Pid::from_raw(1)
    }

    /// Without the signal that a group in the background gets for this.
    fn set(&self, group: Pid) {
        let mut ttou = SigSet::empty();
        ttou.add(Signal::SIGTTOU);
        let Ok(before) = ttou.thread_swap_mask(SigmaskHow::SIG_BLOCK) else {
            return;
        };
        if let Err(error) = tcsetpgrp(&self.tty, group) {
            tracing::debug!(%error, %group, "could not pass the terminal on");
        }
        // Restoring what was there cannot fail.
        let _ = before.thread_set_mask();
    }
}
