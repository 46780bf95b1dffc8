//! What the program leaves behind: daemons, jobs in the background, orphans.
//!
//! As the main process of a container takes everything with it, so does the program: what is left
//! is killed. Only then do its sockets end, and with them the flows that a drain waits for.

use std::collections::HashSet;
use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

/// The children that we had before the program was started: not its, and not ours to kill.
#[derive(Debug)]
pub(super) struct EarlierChildren(HashSet<Pid>);

impl EarlierChildren {
    pub(super) fn now() -> Self {
        Self(children().into_iter().collect())
    }

    /// Kills what is left of the program; whether there was anything.
    ///
    /// A subreaper's orphans are its children, so killing the children brings up the next
    /// generation: call it, reap, and call it again until it finds nothing. A child that is not
    /// reaped yet keeps its number, so no stranger is hit.
    pub(super) fn kill_others(&self) -> bool {
        if getpid() == Pid::from_raw(1) {
            // Everything in the PID namespace but us, in one go: nothing can fork away from it.
            return match kill(Pid::from_raw(-1), Signal::SIGKILL) {
                Ok(()) => true,
                Err(error) => {
                    if error != Errno::ESRCH {
                        tracing::warn!(%error, "could not kill what the program left behind");
                    }
                    false
                }
            };
        }
        let mut any = false;
        for child in children() {
            if !self.0.contains(&child) {
                any = true;
                tracing::debug!(%child, "killing what the program left behind");
                // Gone already: then there is nothing to do.
                let _ = kill(child, Signal::SIGKILL);
            }
        }
        any
    }
}

/// Our children, zombies too. None when /proc is not our PID namespace's: its numbers would be
/// strangers'.
fn children() -> Vec<Pid> {
    let own = getpid();
    let same = fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == &*own.to_string());
    if !same {
        tracing::warn!("/proc is not this PID namespace's: what the program leaves is not killed");
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| parent(*pid) == Some(own.as_raw()))
        .map(Pid::from_raw)
        .collect()
}

/// The fourth field of /proc/PID/stat; the second, the name in brackets, may hold anything.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_is_found_whatever_its_name() {
        let mut child = Command::new("sleep")
            .arg("60")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        assert!(children().contains(&pid));
        assert_eq!(
            parent(getpid().as_raw()),
            Some(nix::unistd::getppid().as_raw())
        );
        child.kill().unwrap();
        // Still a child until it is waited for.
        assert!(children().contains(&pid));
        child.wait().unwrap();
        assert!(!children().contains(&pid));
    }
}
