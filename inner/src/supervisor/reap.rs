//! Reaps children: the app, and every orphan that odyn-net has adopted.
//!
//! This module uses rustix's wait. nix has no value for a real-time signal: its wait would reap the
//! process and then return an error.

use std::io;

use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, wait};

use crate::supervisor::exit_status::AppExit;

/// A change in the state of the app.
pub(super) enum ChildEvent {
    Ended(AppExit),
    /// The signal with this number stopped the app.
    Stopped(i32),
}

/// Reaps all ended children; returns `Some` when the app ended or was stopped.
pub(super) fn reap(app: Pid) -> io::Result<Option<ChildEvent>> {
    while let Some((pid, status)) = next(WaitOptions::NOHANG | WaitOptions::UNTRACED)? {
        if pid != app {
            tracing::trace!(%pid, ?status, "reaped");
        } else if let Some(change) = change(status) {
            return Ok(Some(change));
        }
    }
    Ok(None)
}

/// Reaps all ended children; returns whether any child is left.
pub(super) fn reap_all() -> io::Result<bool> {
    loop {
        match next(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => tracing::trace!(%pid, ?status, "reaped"),
            Ok(None) => return Ok(true),
            Err(Errno::CHILD) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

fn change(status: WaitStatus) -> Option<ChildEvent> {
    let ended = |ending| Some(ChildEvent::Ended(ending));
    if let Some(code) = status.exit_status() {
        return ended(AppExit::Exited(code as u8));
    }
    if let Some(signal) = status.terminating_signal() {
        return ended(AppExit::Signaled(signal));
    }
    status.stopping_signal().map(ChildEvent::Stopped)
}

fn next(options: WaitOptions) -> Result<Option<(Pid, WaitStatus)>, Errno> {
    loop {
        match wait(options) {
            Err(Errno::INTR) => {}
            Ok(found) => {
                let pid = |pid| Pid::from_raw(rustix::process::Pid::as_raw(Some(pid)));
                return Ok(found.map(|(found, status)| (pid(found), status)));
            }
            Err(error) => return Err(error),
        }
    }
}
