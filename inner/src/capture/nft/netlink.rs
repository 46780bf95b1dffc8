//! Installs a [`Ruleset`] in the kernel: one netlink batch, all or nothing.

use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::{NLMSG_ERROR, NetlinkBuffer};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nftnl::expr::{
    Cmp, CmpOp, IcmpCode, Immediate, Meta, Nat, NatType, Payload, Register, RejectionType,
    TcpHeaderField, TransportHeaderField, UdpHeaderField, Verdict,
};
use nftnl::{Batch, FinalizedBatch, MsgType, ProtoFamily, Table};

use super::expr::{DestinationType, Log, Tproxy};
use super::ruleset::{Action, Chain, Hook, Kind, L4, Match, Policy, Rule, Ruleset, TABLE};
use crate::capture::routes::LOOPBACK_INDEX;

/// Route types (linux/rtnetlink.h).
const RTN_LOCAL: u32 = 2;
const RTN_MULTICAST: u32 = 5;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
/// The kernel answers a batch at once; a longer silence means that something is broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why the rules are not installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The kernel has no nf_tables, or refuses this process access to it.
    #[error("cannot talk to nf_tables: {0} (needs CONFIG_NF_TABLES and CAP_NET_ADMIN)")]
    Socket(#[source] io::Error),
    /// The kernel refused one part; no part of the batch is in force.
    #[error("the kernel refused `{part}`: {source} (needs {needs})")]
    Refused {
        /// The part in nft syntax.
        part: String,
        /// Kernel options that this part needs.
        needs: &'static str,
        /// Whether only the audit of rejected packets needs this part.
        optional: bool,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// A message of the batch, for error texts.
struct Part {
    text: String,
    needs: &'static str,
    optional: bool,
}

/// Installs the rules. The transaction also removes an earlier table of the same name, so there is
/// no moment without rules.
pub(super) fn install(ruleset: &Ruleset) -> Result<(), InstallError> {
    let (batch, parts) = encode(ruleset);
    let finalized = batch.finalize();
    send(&finalized, &parts)
}

/// Removes the table, if it exists.
pub(super) fn remove() -> Result<(), InstallError> {
    let mut batch = Batch::new();
    let table = Table::new(c_name(TABLE), ProtoFamily::Inet);
    // Deleting a table that is not there is an error, so it is added first.
    let parts = [MsgType::Add, MsgType::Del].map(|operation| {
        batch.add(&table, operation);
        Part {
            text: format!("table inet {TABLE}"),
            needs: "CONFIG_NF_TABLES and CAP_NET_ADMIN",
            optional: false,
        }
    });
    send(&batch.finalize(), &parts)
}

fn encode(ruleset: &Ruleset) -> (Batch, Vec<Part>) {
    let mut batch = Batch::new();
    let mut parts = Vec::new();
    let mut note = |text: String, needs, optional| {
        parts.push(Part {
            text,
            needs,
            optional,
        });
    };

    let table = Table::new(c_name(TABLE), ProtoFamily::Inet);
    // Deleting a table that is not there is an error, so it is added first.
    for operation in [MsgType::Add, MsgType::Del, MsgType::Add] {
        batch.add(&table, operation);
        note(
            format!("table inet {TABLE}"),
            "CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET and CAP_NET_ADMIN",
            false,
        );
    }
    for chain in &ruleset.chains {
        let encoded = encode_chain(chain, &table);
        batch.add(&encoded, MsgType::Add);
        note(
            format!(
                "chain {} {{ type {:?} hook {:?} }}",
                chain.name, chain.kind, chain.hook
            )
            .to_lowercase(),
            chain_needs(chain.kind),
            false,
        );
        for rule in &chain.rules {
            let mut encoded = nftnl::Rule::new(&encoded);
            for m in &rule.matches {
                add_match(&mut encoded, m);
            }
            add_action(&mut encoded, &rule.action);
            batch.add(&encoded, MsgType::Add);
            note(
                rule_text(rule),
                rule_needs(rule),
                matches!(rule.action, Action::Log { .. }),
            );
        }
    }
    (batch, parts)
}

fn encode_chain<'t>(chain: &Chain, table: &'t Table) -> nftnl::Chain<'t> {
    let mut encoded = nftnl::Chain::new(c_name(chain.name), table);
    encoded.set_hook(
        match chain.hook {
            Hook::Prerouting => nftnl::Hook::PreRouting,
            Hook::Forward => nftnl::Hook::Forward,
            Hook::Output => nftnl::Hook::Out,
            Hook::Postrouting => nftnl::Hook::PostRouting,
        },
        chain.priority,
    );
    encoded.set_type(match chain.kind {
        Kind::Filter => nftnl::ChainType::Filter,
        Kind::Nat => nftnl::ChainType::Nat,
        Kind::Route => nftnl::ChainType::Route,
    });
    encoded.set_policy(match chain.policy {
        Policy::Accept => nftnl::Policy::Accept,
        Policy::Drop => nftnl::Policy::Drop,
    });
    encoded
}

fn add_match(rule: &mut nftnl::Rule<'_>, m: &Match) {
    match *m {
        Match::FamilyOf(address) => {
            rule.add_expr(&Meta::NfProto);
            let family = if address.is_ipv4() {
                NFPROTO_IPV4
            } else {
                NFPROTO_IPV6
            };
            rule.add_expr(&equals(&[family]));
        }
        Match::Protocol(l4) => {
            rule.add_expr(&Meta::L4Proto);
            rule.add_expr(&equals(&[l4.number()]));
        }
        Match::Port(l4, port) => {
            add_match(rule, &Match::Protocol(l4));
            rule.add_expr(&Payload::Transport(match l4 {
                L4::Tcp => TransportHeaderField::Tcp(TcpHeaderField::Dport),
                L4::Udp => TransportHeaderField::Udp(UdpHeaderField::Dport),
            }));
            rule.add_expr(&equals(&port.to_be_bytes()));
        }
        Match::LocalDestination => add_destination_type(rule, RTN_LOCAL),
        Match::MulticastDestination => add_destination_type(rule, RTN_MULTICAST),
        Match::Mark(mark) => {
            rule.add_expr(&Meta::Mark { set: false });
            rule.add_expr(&equals(&mark.to_ne_bytes()));
        }
        Match::ToLoopback => {
            rule.add_expr(&Meta::Oif);
            rule.add_expr(&equals(&LOOPBACK_INDEX.to_ne_bytes()));
        }
        Match::FromLoopback => {
            rule.add_expr(&Meta::Iif);
            rule.add_expr(&equals(&LOOPBACK_INDEX.to_ne_bytes()));
        }
    }
}

fn add_destination_type(rule: &mut nftnl::Rule<'_>, route_type: u32) {
    rule.add_expr(&DestinationType {
        register: Register::Reg1,
    });
    rule.add_expr(&equals(&route_type.to_ne_bytes()));
}

fn equals(bytes: &[u8]) -> Cmp<&[u8]> {
    Cmp::new(CmpOp::Eq, bytes)
}

fn add_action(rule: &mut nftnl::Rule<'_>, action: &Action) {
    match *action {
        Action::Accept => rule.add_expr(&Verdict::Accept),
        Action::Drop => rule.add_expr(&Verdict::Drop),
        Action::Return => rule.add_expr(&Verdict::Return),
        Action::Dnat(to) => {
            load_address(rule, to);
            rule.add_expr(&Nat {
                nat_type: NatType::DNat,
                family: family_of(to),
                ip_register: Register::Reg1,
                port_register: Some(Register::Reg2),
            });
        }
        Action::Tproxy(to) => {
            load_address(rule, to);
            rule.add_expr(&Tproxy {
                family: family_of(to),
                address: Register::Reg1,
                port: Register::Reg2,
            });
            rule.add_expr(&Verdict::Accept);
        }
        Action::SetMark(mark) => {
            rule.add_expr(&Immediate::new(mark, Register::Reg1));
            rule.add_expr(&Meta::Mark { set: true });
        }
        Action::Log { group, snaplen } => rule.add_expr(&Log { group, snaplen }),
        Action::RejectReset => rule.add_expr(&Verdict::Reject(RejectionType::TcpRst)),
        Action::RejectProhibited => rule.add_expr(&Verdict::Reject(RejectionType::Icmp(
            IcmpCode::AdminProhibited,
        ))),
    }
}

/// Loads the address into register 1 and the port, in network order, into register 2.
fn load_address(rule: &mut nftnl::Rule<'_>, to: SocketAddr) {
    match to.ip() {
        IpAddr::V4(ip) => rule.add_expr(&Immediate::new(ip.octets(), Register::Reg1)),
        IpAddr::V6(ip) => rule.add_expr(&Immediate::new(ip.octets(), Register::Reg1)),
    }
    rule.add_expr(&Immediate::new(to.port().to_be_bytes(), Register::Reg2));
}

fn family_of(address: SocketAddr) -> ProtoFamily {
    if address.is_ipv4() {
        ProtoFamily::Ipv4
    } else {
        ProtoFamily::Ipv6
    }
}

fn send(batch: &FinalizedBatch, parts: &[Part]) -> Result<(), InstallError> {
    let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER).map_err(InstallError::Socket)?;
    socket.bind_auto().map_err(InstallError::Socket)?;
    socket2::SockRef::from(&socket)
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .map_err(InstallError::Socket)?;
    for bytes in batch {
        socket.send(bytes, 0).map_err(InstallError::Socket)?;
    }

    let sequence = batch.sequence_numbers();
    // Kernels since 6.10 acknowledge the begin and end messages as well; then the first part has
    // the second number.
    let acknowledged = sequence.len();
    let first_part = sequence.start + u32::from(acknowledged > parts.len());
    let mut seen = 0;
    while seen < acknowledged {
        let (answer, _) = socket.recv_from_full().map_err(InstallError::Socket)?;
        let mut rest = answer.as_slice();
        while let Ok(message) = NetlinkBuffer::new_checked(rest) {
            if message.message_type() == NLMSG_ERROR {
                seen += 1;
                if let Some(error) = error_of(message.payload()) {
                    let index = message.sequence_number().wrapping_sub(first_part) as usize;
                    return Err(refused(parts.get(index), error));
                }
            }
            let length = (message.length() as usize).next_multiple_of(4);
            match rest.get(length..) {
                Some(next) if length > 0 && !next.is_empty() => rest = next,
                _ => break,
            }
        }
    }
    Ok(())
}

/// Parses the error of an NLMSG_ERROR payload; `None` for an acknowledgement.
fn error_of(payload: &[u8]) -> Option<io::Error> {
    let code = payload.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
    (code != 0).then(|| io::Error::from_raw_os_error(code.wrapping_neg()))
}

fn refused(part: Option<&Part>, source: io::Error) -> InstallError {
    match part {
        Some(part) => InstallError::Refused {
            part: part.text.clone(),
            needs: part.needs,
            optional: part.optional,
            source,
        },
        None => InstallError::Refused {
            part: "nf_tables transaction".into(),
            needs: "CONFIG_NF_TABLES and CAP_NET_ADMIN",
            optional: false,
            source,
        },
    }
}

fn chain_needs(kind: Kind) -> &'static str {
    match kind {
        Kind::Filter => "CONFIG_NF_TABLES_INET",
        Kind::Nat => "CONFIG_NFT_NAT and CONFIG_NF_NAT",
        Kind::Route => "CONFIG_NF_TABLES_IPV4 and CONFIG_NF_TABLES_IPV6",
    }
}

fn rule_needs(rule: &Rule) -> &'static str {
    match rule.action {
        Action::Dnat(_) => "CONFIG_NFT_NAT, CONFIG_NF_CONNTRACK",
        Action::Tproxy(_) => "CONFIG_NFT_TPROXY",
        Action::Log { .. } => "CONFIG_NFT_LOG, CONFIG_NETFILTER_NETLINK_LOG",
        Action::RejectReset | Action::RejectProhibited => "CONFIG_NFT_REJECT_INET",
        Action::Accept | Action::Return | Action::SetMark(_) | Action::Drop => {
            if rule.matches.contains(&Match::LocalDestination)
                || rule.matches.contains(&Match::MulticastDestination)
            {
                "CONFIG_NFT_FIB_INET"
            } else {
                "CONFIG_NF_TABLES_INET"
            }
        }
    }
}

fn rule_text(rule: &Rule) -> String {
    let mut text = String::new();
    for m in &rule.matches {
        text.push_str(&m.to_string());
        text.push(' ');
    }
    text.push_str(&rule.action.to_string());
    text
}

/// Converts the name of a table or chain. Names are constants without a NUL; the kernel would
/// refuse an empty one.
fn c_name(name: &str) -> CString {
    CString::new(name).unwrap_or_else(|_| CStr::to_owned(c""))
}
