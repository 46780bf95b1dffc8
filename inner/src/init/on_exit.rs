//! Powers off or restarts the machine when odyn-net ends.

use std::os::unix::fs::MetadataExt;

use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{Pid, getpid};

/// `--on-exit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OnExit {
    /// Power off when odyn-net is the first process of the machine; exit otherwise.
    #[default]
    Auto,
    /// Exit, also as the first process of the machine.
    Exit,
    /// Power the machine off.
    Poweroff,
    /// Restart the machine. Firecracker ends on this and not on poweroff.
    Reboot,
}

/// The inode of the initial PID namespace (PROC_PID_INIT_INO, linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Ends the machine if `--on-exit` says so; returns when the process is to exit.
pub fn end(on_exit: OnExit) {
    let Some(mode) = mode(on_exit, is_first_of_machine()) else {
        return;
    };
    nix::unistd::sync();
    let Err(error) = reboot(mode);
    eprintln!("odyn-net: cannot end the machine: {error}");
}

fn mode(on_exit: OnExit, first_of_machine: bool) -> Option<RebootMode> {
    match on_exit {
        OnExit::Auto if first_of_machine => Some(RebootMode::RB_POWER_OFF),
        OnExit::Auto | OnExit::Exit => None,
        OnExit::Poweroff => Some(RebootMode::RB_POWER_OFF),
        OnExit::Reboot => Some(RebootMode::RB_AUTOBOOT),
    }
}

fn is_first_of_machine() -> bool {
    getpid() == Pid::from_raw(1) && in_initial_pid_namespace()
}

/// Whether process 1 of this PID namespace is the machine's first process.
pub(crate) fn in_initial_pid_namespace() -> bool {
    std::fs::metadata("/proc/self/ns/pid").is_ok_and(|found| found.ino() == INITIAL_PID_NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_process_of_a_machine_ends_it_unasked() {
        assert_eq!(mode(OnExit::Auto, false), None);
        assert_eq!(mode(OnExit::Auto, true), Some(RebootMode::RB_POWER_OFF));
        assert_eq!(mode(OnExit::Exit, true), None);
        assert_eq!(mode(OnExit::Reboot, false), Some(RebootMode::RB_AUTOBOOT));
        assert!(!is_first_of_machine());
    }
}
