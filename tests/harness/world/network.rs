//! The cable between the internet and the host, and the addresses of both.

use crate::namespace::Namespace;

use super::{RESOLVER, RESOLVER6};

/// Prefixes that the internet answers for. Whole blocks, so that a probe that
/// does get out meets a server: a test that sees nothing answer has seen the
/// policy work, not an empty network. 169.254.169.254 is there on purpose.
const INTERNET_NETS: &[&str] = &[
    "203.0.113.0/24",
    "198.51.100.0/24",
    "198.18.0.0/15",
    "10.0.0.0/8",
    "8.8.8.8/32",
    "169.254.169.254/32",
];
/// The internet's own addresses: what dnsmasq listens on, and IPv6, as the kernel does
/// not let a server bind to an address out of a local IPv6 prefix.
const INTERNET_ADDRESSES: &[&str] = &[
    RESOLVER,
    RESOLVER6,
    "2001:db8::10",
    "2001:db8::11",
    "2001:db8::12",
    "2001:db8::66",
    "fd00:ec2::254",
];

/// Lays the cable: 192.0.2.1 and 2001:db8:1::1 are the internet's side,
/// .2 and ::2 the host's.
pub(super) fn connect(internet: &Namespace, host: &Namespace) {
    use std::fmt::Write as _;

    let mut lines = format!(
        "link set lo up\n\
         link add up0 type veth peer name eth0 netns {}\n\
         link set up0 up\n\
         address add 192.0.2.1/24 dev up0\n\
         address add 2001:db8:1::1/64 dev up0 nodad\n\
         address add fe80::1/64 dev up0 nodad\n",
        host.pid()
    );
    for net in INTERNET_NETS {
        let _ = writeln!(lines, "route add local {net} dev lo");
    }
    for address in INTERNET_ADDRESSES {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        let _ = writeln!(lines, "address add {address} dev lo {nodad}");
    }
    internet.ip(&lines);
    host.ip("link set lo up\n\
         link set eth0 up\n\
         address add 192.0.2.2/24 dev eth0\n\
         address add 2001:db8:1::2/64 dev eth0 nodad\n\
         route add default via 192.0.2.1\n\
         route add default via 2001:db8:1::1\n");
}
