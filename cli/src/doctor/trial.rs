//! Tries rules, routes and the seccomp filter in a process that ends afterwards.
//!
//! The process is this executable with a hidden command, in a network namespace of its own. It has
//! one thread when it enters the namespace, and its changes end with it. Only the modules stay that
//! the kernel loads on demand, as it would for `odyn-net run`.

use std::error::Error;
use std::io;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use odyn_net::capture::routes::{OwnAddresses, kernel_has_ipv6};
use odyn_net::capture::{Nftables, routes};
use odyn_net::supervisor::seccomp;
use serde::{Deserialize, Serialize};

use crate::args::TRIAL_COMMAND;
use crate::doctor::catalogue::Id;
use crate::doctor::check::Finding;
use crate::doctor::rules;

/// How long a trial may take. It needs milliseconds, and longer when modules come from a slow disk.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval of the checks whether the trial has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Bytes of a report, at most.
const MAX_REPORT: u64 = 256 * 1024;

/// The findings of the trial.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Trial {
    /// The finding about the namespace, with how it was made.
    pub namespace: Option<Finding>,
    /// The other findings.
    pub findings: Vec<(Id, Finding)>,
}

/// Starts the trial and reads its report.
///
/// # Errors
/// The trial could not be started, or did not answer.
pub fn run() -> Result<Trial, String> {
    let mut child = Command::new("/proc/self/exe")
        .arg0("enclaver")
        .arg(TRIAL_COMMAND)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start the trial process: {error} (is /proc mounted?)"))?;
    let deadline = Instant::now() + TRIAL_TIMEOUT;
    // The report fits into a pipe, so the process can end before it is read.
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL_INTERVAL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "the trial process did not end within {TRIAL_TIMEOUT:?}"
                ));
            }
            Err(error) => return Err(format!("cannot wait for the trial process: {error}")),
        }
    };
    let mut report = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(MAX_REPORT)
            .read_to_end(&mut report)
            .map_err(|error| format!("cannot read what the trial process found: {error}"))?;
    }
    serde_json::from_slice(&report)
        .map_err(|error| format!("the trial process ended with {status} and no report: {error}"))
}

/// Runs the trial and prints its report, in the process with the hidden command.
pub fn child() {
    let mut trial = Trial::default();
    match enter() {
        Ok(how) => {
            trial.namespace = Some(Finding::present(how));
            trial.findings = in_namespace();
        }
        Err(error) => trial.namespace = Some(finding_of(&error)),
    }
    // Comes last, as the filter cannot be removed.
    trial.findings.push((Id::Seccomp, seccomp()));
    if let Ok(json) = serde_json::to_string(&trial) {
        println!("{json}");
    }
}

/// Moves this process into a network namespace in which it has every right.
fn enter() -> io::Result<&'static str> {
    let rights = [
        Capability::CAP_SYS_ADMIN,
        Capability::CAP_NET_ADMIN,
        Capability::CAP_NET_RAW,
    ];
    let all = rights
        .iter()
        .all(|right| caps::has_cap(None, CapSet::Effective, *right).unwrap_or(false));
    if all {
        unshare(CloneFlags::CLONE_NEWNET)?;
        return Ok("a network namespace of its own");
    }
    // A user namespace gives the missing rights over the network namespace.
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    Ok("a user and a network namespace of its own")
}

fn in_namespace() -> Vec<(Id, Finding)> {
    let own = OwnAddresses {
        v4: odyn_proto::synthetic::GUEST_V4,
        v6: kernel_has_ipv6().then_some(odyn_proto::synthetic::GUEST_V6),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return vec![(Id::Runtime, Finding::missing(error.to_string()))],
    };
    let mut findings = vec![(Id::Runtime, Finding::present(""))];
    let routed = runtime.block_on(routes::install(own));
    findings.push((Id::RoutingRules, outcome(&routed)));
    findings.extend(rules::each(own));
    let captured = runtime.block_on(Nftables::install(own));
    findings.push((Id::NftCapture, outcome(&captured)));
    findings
}

/// Installs the app's filter and checks that it works.
fn seccomp() -> Finding {
    let applied = nix::sys::prctl::set_no_new_privs()
        .map_err(|error| error.to_string())
        // The filter for root contains the other one.
        .and_then(|()| seccomp::apply(true).map_err(|error| error.to_string()));
    if let Err(error) = applied {
        return Finding::missing(error);
    }
    match socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    ) {
        Err(Errno::EAFNOSUPPORT) => Finding::present(""),
        Ok(_) => Finding::missing("the filter is in force, but a vsock socket could be opened"),
        Err(error) => Finding::unknown(format!("the filtered socket call returned: {error}")),
    }
}

fn outcome<T, E: Error + 'static>(result: &Result<T, E>) -> Finding {
    match result {
        Ok(_) => Finding::present(""),
        Err(error) => finding_of(error),
    }
}

/// Turns an error into a finding. "Not permitted" says nothing about the kernel; every other error
/// means that something is missing.
pub(super) fn finding_of(error: &(dyn Error + 'static)) -> Finding {
    let mut cause = Some(error);
    while let Some(error_now) = cause {
        if let Some(io) = error_now.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::PermissionDenied
        {
            return Finding::unknown(error.to_string());
        }
        cause = error_now.source();
    }
    Finding::missing(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_permitted_is_not_called_missing() {
        let denied = io::Error::from_raw_os_error(nix::libc::EPERM);
        assert_eq!(finding_of(&denied), Finding::unknown(denied.to_string()));
        let absent = io::Error::from_raw_os_error(nix::libc::ENOENT);
        assert_eq!(finding_of(&absent), Finding::missing(absent.to_string()));
    }

    #[test]
    fn a_report_survives_the_pipe() {
        let trial = Trial {
            namespace: Some(Finding::present("x")),
            findings: vec![(Id::NftNat, Finding::missing("no"))],
        };
        let json = serde_json::to_string(&trial).unwrap();
        let back: Trial = serde_json::from_str(&json).unwrap();
        assert_eq!(back.findings, trial.findings);
    }
}
