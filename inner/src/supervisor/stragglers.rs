//! Kills the processes that the app left behind: daemons, background jobs, orphans.
//!
//! The end of a container's main process ends all of its processes, and the end of the app does the
//! same. The sockets of the killed processes end, and with them the flows that a drain waits for.

use std::collections::HashSet;
use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

/// The children that odyn-net had before the app. They are not the app's, and are not killed.
#[derive(Debug)]
pub(super) struct EarlierChildren(HashSet<Pid>);

impl EarlierChildren {
    pub(super) fn now() -> Self {
        Self(children().into_iter().collect())
    }

    /// Kills the processes that the app left behind; returns whether there were any.
    ///
    /// A subreaper adopts the orphans of its children, so each round of kills brings up the next
    /// generation: call this, reap, and repeat until it returns `false`. An unreaped child keeps
    /// its PID, so the kill hits no other process.
    pub(super) fn kill_others(&self) -> bool {
        if getpid() == Pid::from_raw(1) {
            // One kill(-1) ends everything in the PID namespace but odyn-net; no fork escapes it.
            return match kill(Pid::from_raw(-1), Signal::SIGKILL) {
                Ok(()) => true,
                Err(error) => {
                    if error != Errno::ESRCH {
                        tracing::warn!(%error, "cannot kill processes that the app left behind");
                    }
                    false
                }
            };
        }
        let mut any = false;
        for child in children() {
            if !self.0.contains(&child) {
                any = true;
                tracing::debug!(%child, "killing a process that the app left behind");
                // ESRCH: the child has ended already.
                let _ = kill(child, Signal::SIGKILL);
            }
        }
        any
    }
}

/// The children of odyn-net, zombies included. Empty when /proc belongs to another PID namespace,
/// whose numbers mean other processes.
fn children() -> Vec<Pid> {
    let own = getpid();
    let same = fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == &*own.to_string());
    if !same {
        tracing::warn!(
            "/proc is of another PID namespace: processes that the app leaves are not killed"
        );
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

/// The fourth field of /proc/PID/stat. The second one is the name in brackets, which may hold any
/// byte.
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
