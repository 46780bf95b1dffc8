//! Checks /proc, /sys and this process.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit};
use odyn_net::capture::routes::kernel_has_ipv6;

use crate::doctor::check::Finding;

/// With fewer descriptors a busy app will reach the limit.
const ENOUGH_FILES: u64 = 4096;

pub(super) fn proc_mounted() -> Finding {
    if Path::new("/proc/self/exe").exists() {
        Finding::present("")
    } else {
        Finding::missing("/proc/self/exe does not exist")
    }
}

/// Checks for `lo`. odyn-net brings it up when it is down.
pub(super) fn loopback() -> Finding {
    match nix::net::if_::if_nametoindex("lo") {
        Ok(_) => Finding::present(""),
        Err(error) => Finding::missing(format!("no interface lo: {error}")),
    }
}

pub(super) fn ipv6() -> Finding {
    if !kernel_has_ipv6() {
        return Finding::missing("the kernel has none, or was started with ipv6.disable=1");
    }
    match fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6") {
        Ok(text) if text.trim() != "0" => {
            Finding::present("off on lo by sysctl; odyn-net switches it on there")
        }
        _ => Finding::present(""),
    }
}

/// Checks that the effective set has all of these capabilities.
pub(super) fn capability(names: &[&str]) -> Finding {
    let mut missing = Vec::new();
    for name in names {
        let full = format!("CAP_{name}");
        let Ok(capability) = full.parse::<Capability>() else {
            return Finding::unknown(format!("this version does not know {full}"));
        };
        match caps::has_cap(None, CapSet::Effective, capability) {
            Ok(true) => {}
            Ok(false) => missing.push(full),
            Err(error) => return Finding::unknown(error.to_string()),
        }
    }
    if missing.is_empty() {
        Finding::present("")
    } else {
        Finding::missing(format!("this process lacks {}", missing.join(" and ")))
    }
}

pub(super) fn other_interfaces() -> Finding {
    let mut names = BTreeSet::new();
    for (path, routed) in [
        ("/proc/net/route", routed_v4 as fn(&str) -> Option<&str>),
        ("/proc/net/ipv6_route", routed_v6),
    ] {
        match fs::read_to_string(path) {
            Ok(table) => names.extend(table.lines().filter_map(routed).map(str::to_owned)),
            // The file is missing on a kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Finding::unknown(format!("{path}: {error}")),
        }
    }
    if names.is_empty() {
        return Finding::present("");
    }
    let names: Vec<String> = names.into_iter().collect();
    Finding::missing(format!(
        "other interfaces have routes: {}",
        names.join(", ")
    ))
}

/// Returns the interface of a line of /proc/net/route, unless it is `lo` or the heading.
fn routed_v4(line: &str) -> Option<&str> {
    let name = line.split_whitespace().next()?;
    (name != "lo" && name != "Iface").then_some(name)
}

/// Returns the interface of a line of /proc/net/ipv6_route. Skips the link-local and multicast
/// routes, which every interface has that is up.
fn routed_v6(line: &str) -> Option<&str> {
    let mut fields = line.split_whitespace();
    let destination = fields.next()?;
    let name = fields.next_back()?;
    let by_itself = destination.starts_with("fe80") || destination.starts_with("ff");
    (name != "lo" && !by_itself).then_some(name)
}

pub(super) fn resolv_conf() -> Finding {
    match fs::read_to_string("/etc/resolv.conf") {
        Ok(text) => {
            let servers: Vec<&str> = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("nameserver"))
                .map(str::trim)
                .collect();
            if servers.is_empty() {
                Finding::present("it names no server: libc asks 127.0.0.1")
            } else {
                Finding::present(format!("it names {}", servers.join(", ")))
            }
        }
        Err(error) => Finding::missing(format!("/etc/resolv.conf: {error}")),
    }
}

pub(super) fn open_files() -> Finding {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if hard >= ENOUGH_FILES => Finding::present(format!("{soft} of {hard}")),
        Ok((_, hard)) => Finding::missing(format!("the hard limit is {hard}")),
        Err(error) => Finding::unknown(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_from_both_tables() {
        assert_eq!(routed_v4("Iface\tDestination\tGateway"), None);
        assert_eq!(routed_v4("eth0\t00000000\t010200C0"), Some("eth0"));
        assert_eq!(routed_v4("lo\t00000000\t00000000"), None);
        assert_eq!(routed_v4(""), None);
        let line = |destination: &str, name: &str| {
            format!(
                "{destination} 40 {:032} 00 {:032} 00000100 1 0 1 {name}",
                0, 0
            )
        };
        let global = "20010db8000100000000000000000000";
        assert_eq!(routed_v6(&line(global, "eth0")), Some("eth0"));
        assert_eq!(routed_v6(&line(global, "lo")), None);
        let own = "fe800000000000000000000000000000";
        assert_eq!(routed_v6(&line(own, "eth0")), None);
    }
}
