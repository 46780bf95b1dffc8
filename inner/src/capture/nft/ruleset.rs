//! The capture rules as plain data.
//!
//! A pure function builds the [`Ruleset`]. It is rendered as nft syntax for people and golden
//! tests, and the `netlink` module encodes it for the kernel.

use std::fmt;
use std::net::SocketAddr;

/// Name of odyn-net's table. Each start replaces the whole table.
pub const TABLE: &str = "odyn";

/// Firewall mark of UDP datagrams that are routed back to `lo` for tproxy.
pub const UDP_MARK: u32 = 0x1;

/// NFLOG group that carries the headers of packets that were rejected.
pub const LOG_GROUP: u16 = 0x0d1;

/// Bytes of each rejected packet that the kernel copies to the log: an IPv6 header and ports.
pub const LOG_SNAPLEN: u32 = 64;

/// The sockets that get captured traffic, one set for each address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steering {
    /// Listener for redirected TCP connections.
    pub tcp: SocketAddr,
    /// Transparent socket for UDP datagrams.
    pub udp: SocketAddr,
    /// The resolver, UDP.
    pub dns_udp: SocketAddr,
    /// The resolver, TCP.
    pub dns_tcp: SocketAddr,
}

/// One table of family `inet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Base chains, in the order of their creation.
    pub chains: Vec<Chain>,
}

/// A base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Name within the table.
    pub name: &'static str,
    /// Chain type.
    pub kind: Kind,
    /// Netfilter hook.
    pub hook: Hook,
    /// Priority among the chains of the hook.
    pub priority: i32,
    /// The verdict on packets that no rule decided.
    pub policy: Policy,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

/// Chain type, as in `type nat hook …`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Accepts or drops.
    Filter,
    /// Network address translation; sees the first packet of a connection.
    Nat,
    /// Re-routes a packet whose mark was changed.
    Route,
}

/// Netfilter hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Packets that arrive, before routing.
    Prerouting,
    /// Packets that this machine routes.
    Forward,
    /// Packets that local sockets send.
    Output,
    /// Packets about to leave; only this hook knows the interface for sure.
    Postrouting,
}

/// Policy of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Pass the packet on.
    Accept,
    /// Drop it.
    Drop,
}

/// Matches, all of which must hold, and then the action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The conditions.
    pub matches: Vec<Match>,
    /// The action.
    pub action: Action,
}

/// One condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// The packet is of the family of this address.
    FamilyOf(SocketAddr),
    /// The layer 4 protocol.
    Protocol(L4),
    /// The destination port of TCP or UDP.
    Port(L4, u16),
    /// The destination is an address of this namespace.
    LocalDestination,
    /// The destination is a multicast group.
    MulticastDestination,
    /// The packet's mark.
    Mark(u32),
    /// The packet arrived on the loopback interface (index 1 in every namespace).
    FromLoopback,
    /// The packet is about to leave by the loopback interface.
    ToLoopback,
}

/// Layer 4 protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L4 {
    /// TCP, 6.
    Tcp,
    /// UDP, 17.
    Udp,
}

/// The action of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Accept the packet in this chain.
    Accept,
    /// Leave the chain.
    Return,
    /// Rewrite the destination.
    Dnat(SocketAddr),
    /// Hand the packet to the transparent socket at this address.
    Tproxy(SocketAddr),
    /// Set the packet's mark.
    SetMark(u32),
    /// Copy the packet's headers to NFLOG.
    Log {
        /// NFLOG group.
        group: u16,
        /// Bytes to copy.
        snaplen: u32,
    },
    /// Answer with a TCP reset.
    RejectReset,
    /// Answer with ICMP or ICMPv6 "administratively prohibited".
    RejectProhibited,
    /// Drop the packet; its sender sees EPERM.
    Drop,
}

/// Builds the capture rules for the given sockets (one entry for each address family in use).
///
/// The order of the hooks matters. For a packet of the app, `route` (-150) marks UDP, `nat` (-100)
/// turns TCP and DNS towards our listeners, and `filter` (0) lets only packets to ourselves pass.
pub fn capture(steering: &[Steering]) -> Ruleset {
    Ruleset {
        chains: vec![
            mark_udp(),
            redirect(steering),
            reject_rest(),
            deliver_udp(steering),
            no_forwarding(),
            only_loopback(),
        ],
    }
}

fn mark_udp() -> Chain {
    let rule = |matches, action| Rule { matches, action };
    Chain {
        name: "mark_udp",
        kind: Kind::Route,
        hook: Hook::Output,
        priority: -150,
        policy: Policy::Accept,
        rules: vec![
            rule(vec![Match::Port(L4::Udp, 53)], Action::Return),
            rule(vec![Match::LocalDestination], Action::Return),
            // A multicast group has no single peer to connect to, so the rules reject its packets.
            rule(vec![Match::MulticastDestination], Action::Return),
            rule(vec![Match::Protocol(L4::Udp)], Action::SetMark(UDP_MARK)),
        ],
    }
}

/// Port 53 comes before the exception for local destinations: an image whose resolv.conf names
/// 127.0.0.53 or 127.0.0.11 must reach our resolver, too.
fn redirect(steering: &[Steering]) -> Chain {
    let mut rules = Vec::new();
    for s in steering {
        rules.push(Rule {
            matches: vec![Match::FamilyOf(s.dns_udp), Match::Port(L4::Udp, 53)],
            action: Action::Dnat(s.dns_udp),
        });
        rules.push(Rule {
            matches: vec![Match::FamilyOf(s.dns_tcp), Match::Port(L4::Tcp, 53)],
            action: Action::Dnat(s.dns_tcp),
        });
    }
    rules.push(Rule {
        matches: vec![Match::LocalDestination],
        action: Action::Return,
    });
    for s in steering {
        rules.push(Rule {
            matches: vec![Match::FamilyOf(s.tcp), Match::Protocol(L4::Tcp)],
            action: Action::Dnat(s.tcp),
        });
    }
    Chain {
        name: "redirect",
        kind: Kind::Nat,
        hook: Hook::Output,
        priority: -100,
        policy: Policy::Accept,
        rules,
    }
}

fn reject_rest() -> Chain {
    let rule = |matches, action| Rule { matches, action };
    Chain {
        name: "reject_rest",
        kind: Kind::Filter,
        hook: Hook::Output,
        priority: 0,
        policy: Policy::Drop,
        rules: vec![
            rule(vec![Match::LocalDestination], Action::Accept),
            rule(
                vec![Match::Mark(UDP_MARK), Match::Protocol(L4::Udp)],
                Action::Accept,
            ),
            rule(vec![], log()),
            rule(vec![Match::Protocol(L4::Tcp)], Action::RejectReset),
            rule(vec![], Action::RejectProhibited),
        ],
    }
}

fn deliver_udp(steering: &[Steering]) -> Chain {
    Chain {
        name: "deliver_udp",
        kind: Kind::Filter,
        hook: Hook::Prerouting,
        priority: -150,
        policy: Policy::Accept,
        rules: steering
            .iter()
            .map(|s| Rule {
                matches: vec![
                    Match::FromLoopback,
                    Match::Mark(UDP_MARK),
                    Match::FamilyOf(s.udp),
                    Match::Protocol(L4::Udp),
                ],
                action: Action::Tproxy(s.udp),
            })
            .collect(),
    }
}

fn no_forwarding() -> Chain {
    Chain {
        name: "no_forwarding",
        kind: Kind::Filter,
        hook: Hook::Forward,
        priority: 0,
        policy: Policy::Drop,
        rules: vec![],
    }
}

/// Drops packets to other interfaces, which odyn-net itself never needs. Broadcasts, for example,
/// keep the route that they had before they were marked.
fn only_loopback() -> Chain {
    let rule = |matches, action| Rule { matches, action };
    Chain {
        name: "only_loopback",
        kind: Kind::Filter,
        hook: Hook::Postrouting,
        priority: 0,
        policy: Policy::Drop,
        rules: vec![
            rule(vec![Match::ToLoopback], Action::Accept),
            rule(vec![], log()),
            rule(vec![], Action::Drop),
        ],
    }
}

const fn log() -> Action {
    Action::Log {
        group: LOG_GROUP,
        snaplen: LOG_SNAPLEN,
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{")?;
        for chain in &self.chains {
            writeln!(f, "\tchain {} {{", chain.name)?;
            writeln!(
                f,
                "\t\ttype {} hook {} priority {}; policy {};",
                match chain.kind {
                    Kind::Filter => "filter",
                    Kind::Nat => "nat",
                    Kind::Route => "route",
                },
                match chain.hook {
                    Hook::Prerouting => "prerouting",
                    Hook::Forward => "forward",
                    Hook::Output => "output",
                    Hook::Postrouting => "postrouting",
                },
                chain.priority,
                match chain.policy {
                    Policy::Accept => "accept",
                    Policy::Drop => "drop",
                },
            )?;
            for rule in &chain.rules {
                write!(f, "\t\t")?;
                for m in &rule.matches {
                    write!(f, "{m} ")?;
                }
                writeln!(f, "{}", rule.action)?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Match::FamilyOf(SocketAddr::V4(_)) => f.write_str("meta nfproto ipv4"),
            Match::FamilyOf(SocketAddr::V6(_)) => f.write_str("meta nfproto ipv6"),
            Match::Protocol(l4) => write!(f, "meta l4proto {}", l4.name()),
            Match::Port(l4, port) => write!(f, "{} dport {port}", l4.name()),
            Match::LocalDestination => f.write_str("fib daddr type local"),
            Match::MulticastDestination => f.write_str("fib daddr type multicast"),
            Match::Mark(mark) => write!(f, "meta mark {mark:#x}"),
            Match::FromLoopback => f.write_str("iif lo"),
            Match::ToLoopback => f.write_str("oif lo"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |a: &SocketAddr| if a.is_ipv4() { "ip" } else { "ip6" };
        match self {
            Action::Accept => f.write_str("accept"),
            Action::Return => f.write_str("return"),
            Action::Dnat(to) => write!(f, "dnat {} to {to}", family(to)),
            Action::Tproxy(to) => write!(f, "tproxy {} to {to} accept", family(to)),
            Action::SetMark(mark) => write!(f, "meta mark set {mark:#x}"),
            Action::Log { group, snaplen } => write!(f, "log group {group} snaplen {snaplen}"),
            Action::RejectReset => f.write_str("reject with tcp reset"),
            Action::RejectProhibited => f.write_str("reject with icmpx admin-prohibited"),
            Action::Drop => f.write_str("drop"),
        }
    }
}

impl L4 {
    /// Protocol number.
    pub const fn number(self) -> u8 {
        match self {
            L4::Tcp => 6,
            L4::Udp => 17,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            L4::Tcp => "tcp",
            L4::Udp => "udp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steering(ip: &str) -> Steering {
        let at = |port: u16| SocketAddr::new(ip.parse().unwrap(), port);
        Steering {
            tcp: at(61001),
            udp: at(61002),
            dns_udp: at(61053),
            dns_tcp: at(61054),
        }
    }

    #[test]
    fn renders_as_nft_would_list_it() {
        let text = capture(&[steering("198.18.0.1"), steering("fd6f:6479:6e00::1")]).to_string();
        assert_eq!(text, include_str!("golden.nft"));
    }

    #[test]
    fn every_path_ends_in_our_sockets_or_a_rejection() {
        let rules = capture(&[steering("198.18.0.1")]);
        let filter = rules
            .chains
            .iter()
            .find(|c| c.name == "reject_rest")
            .unwrap();
        assert_eq!(filter.policy, Policy::Drop);
        for rule in &filter.rules {
            if rule.action == Action::Accept {
                assert!(
                    rule.matches.contains(&Match::LocalDestination)
                        || rule.matches.contains(&Match::Mark(UDP_MARK)),
                    "accepts more than captured traffic: {rule:?}"
                );
            }
        }
    }

    #[test]
    fn without_ipv6_no_rule_mentions_it() {
        assert!(
            !capture(&[steering("198.18.0.1")])
                .to_string()
                .contains("ip6")
        );
    }
}
