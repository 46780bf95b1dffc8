//! Reads resolv.conf(5): the name servers, and the options that matter for absolute names.
//!
//! The crate `resolv-conf` (0.7) reads the whole format, but accepts letters and digits only in the
//! interface of a link-local server: it drops `fe80::1%br-lan` and `fe80::1%eth0.100`, which glibc
//! takes. Then the host would ask no server at all, or another one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

const PORT: u16 = 53;
/// glibc's MAXNS.
const MAX_SERVERS: usize = 3;

/// The servers to ask, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<SocketAddr>,
    /// Longest wait for one server.
    pub(super) timeout: Duration,
    /// How many times all servers are asked.
    pub(super) attempts: usize,
    /// Never use datagrams (`options use-vc`).
    pub(super) tcp_only: bool,
}

impl Default for ResolvConf {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            attempts: 2,
            tcp_only: false,
        }
    }
}

impl ResolvConf {
    /// Reads the text of a resolv.conf.
    ///
    /// As in libc, malformed lines are skipped, options have upper limits, and without a server this
    /// machine is asked.
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            if line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    if let Some(server) = words.next().and_then(server) {
                        conf.servers.push(server);
                    }
                }
                Some("options") => words.for_each(|option| conf.option(option)),
                _ => {}
            }
        }
        conf.servers.truncate(MAX_SERVERS);
        if conf.servers.is_empty() {
            conf.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        conf
    }

    fn option(&mut self, option: &str) {
        match option.split_once(':') {
            Some(("timeout", seconds)) => {
                if let Ok(seconds) = seconds.parse::<u64>() {
                    self.timeout = Duration::from_secs(seconds.clamp(1, 30));
                }
            }
            Some(("attempts", attempts)) => {
                if let Ok(attempts) = attempts.parse::<usize>() {
                    self.attempts = attempts.clamp(1, 5);
                }
            }
            None if option == "use-vc" => self.tcp_only = true,
            _ => {}
        }
    }
}

/// The address of a server. An IPv6 address may name its interface.
fn server(text: &str) -> Option<SocketAddr> {
    if let Some((address, interface)) = text.split_once('%') {
        let address: Ipv6Addr = address.parse().ok()?;
        let scope = match interface.parse() {
            Ok(index) => index,
            Err(_) => nix::net::if_::if_nametoindex(interface).ok()?,
        };
        return Some(SocketAddrV6::new(address, PORT, 0, scope).into());
    }
    Some((text.parse::<IpAddr>().ok()?, PORT).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Vec<String> {
        let conf = ResolvConf::parse(text);
        conf.servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_in_order_three_at_most() {
        let text = "# made by hand\nnameserver 192.0.2.1 junk\n;nameserver 192.0.2.9\n\
            nameserver nonsense\nnameserver\t2001:db8::1\nnameserver fe80::1%1\n\
            nameserver 192.0.2.4\n";
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%1]:53"];
        assert_eq!(servers(text), expected);
        assert_eq!(servers("nameserver fe80::1%lo\n"), ["[fe80::1%1]:53"]);
    }

    #[test]
    fn without_a_server_this_machine_is_asked() {
        assert_eq!(servers(""), ["127.0.0.1:53"]);
        assert_eq!(
            servers("nameserver fe80::1%no-such-interface\n"),
            ["127.0.0.1:53"]
        );
    }

    #[test]
    fn options_have_limits() {
        let conf = ResolvConf::parse("search a b\noptions ndots:5 timeout:1 attempts:99 use-vc\n");
        assert_eq!(conf.timeout, Duration::from_secs(1));
        assert_eq!((conf.attempts, conf.tcp_only), (5, true));
        let conf = ResolvConf::parse("options timeout:0 attempts:-1\noptions timeout:x\n");
        assert_eq!(conf.timeout, Duration::from_secs(1));
        assert_eq!((conf.attempts, conf.tcp_only), (2, false));
    }
}
