//! Checks the running kernel and this process without changing anything. Checks that change
//! something run in the [trial](super::trial).

mod devices;
mod ioctl;
mod system;

use std::collections::BTreeMap;

use crate::doctor::catalogue::Id;
use crate::doctor::check::{Finding, Verdict};
use crate::doctor::trial;
use crate::doctor::trial::Trial;

/// The findings about the running kernel.
pub(super) struct Live {
    /// The finding of every check.
    pub(super) findings: BTreeMap<Id, Finding>,
    /// A note for the reader on how the trial ran.
    pub(super) note: String,
}

/// Runs all checks.
pub(super) fn look() -> Live {
    let trial = trial::run().unwrap_or_else(|why| Trial {
        namespace: Some(Finding::unknown(why)),
        findings: Vec::new(),
    });
    let namespace = trial
        .namespace
        .unwrap_or_else(|| Finding::unknown("the trial reported nothing"));
    let mut findings: BTreeMap<Id, Finding> = trial.findings.into_iter().collect();
    let note = match namespace.verdict {
        Verdict::Present => format!(
            "Rules and routes were tried in {}; the kernel may have loaded modules for them, as it \
             would for `odyn-net run`.",
            namespace.detail
        ),
        _ => format!(
            "Rules and routes could not be tried, as there is no namespace for it ({}): run this \
             as root.",
            namespace.detail
        ),
    };
    findings.extend([
        (Id::Tun, devices::tun()),
        (Id::OtherInterfaces, system::other_interfaces()),
        (Id::Loopback, system::loopback()),
        (Id::Ipv6, system::ipv6()),
        (Id::NetAdmin, system::capability(&["NET_ADMIN"])),
        (Id::NetRaw, system::capability(&["NET_RAW"])),
        (Id::Proc, system::proc_mounted()),
        (Id::SetUser, system::capability(&["SETUID", "SETGID"])),
        (Id::SysAdmin, system::capability(&["SYS_ADMIN"])),
        (Id::ResolvConf, system::resolv_conf()),
        (Id::OpenFiles, system::open_files()),
        (Id::Vsock, devices::vsock()),
        (Id::VsockCid, devices::vsock_cid()),
        (Id::VsockLoopback, devices::vsock_loopback()),
        (Id::Nsm, devices::nsm()),
        (Id::Namespaces, namespace.clone()),
    ]);
    // Checks that the trial did not reach.
    for id in Id::ALL {
        findings
            .entry(id)
            .or_insert_with(|| Finding::unknown("not tried: run this as root"));
    }
    Live { findings, note }
}
