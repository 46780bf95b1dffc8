//! Rules that open more than their authors expect, or nothing.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::diagnostic::DiagnosticSink;
use crate::pattern::Pattern;
use crate::rule::{Effect, Rule, RuleTarget};
use crate::special::Special;
use crate::{codes, special};

/// Services that give the credentials of the instance, the task or the pod to any client.
const METADATA: [(&str, &str); 6] = [
    ("169.254.169.254", "the instance metadata service"),
    ("fd00:ec2::254", "the instance metadata service"),
    ("169.254.170.2", "the ECS task credential service"),
    ("fd00:ec2::2", "the ECS task credential service"),
    ("169.254.170.23", "the EKS pod identity service"),
    ("fd00:ec2::23", "the EKS pod identity service"),
];

pub(super) fn run(rules: &[Rule], sink: &mut DiagnosticSink) {
    for rule in rules.iter().filter(|rule| rule.effect == Effect::Allow) {
        match &rule.target {
            RuleTarget::Host => {}
            RuleTarget::Name(pattern) => name(rule, pattern, sink),
            RuleTarget::Net(net) => network(rule, *net, sink),
        }
    }
}

fn name(rule: &Rule, pattern: &Pattern, sink: &mut DiagnosticSink) {
    let span = rule.span;
    let labels = match pattern {
        Pattern::Exact(name) if name.is_localhost() => {
            let message = format!("`{name}` is never allowed, so the rule does nothing");
            sink.warning(codes::UNREACHABLE_RULE, span, message)
                .help("connections inside the guest need no rule; `host` is the host's loopback");
            return;
        }
        Pattern::Exact(_) => return,
        Pattern::Wild(labels) => labels,
    };
    if pattern.literal_chars() == 0 {
        let what = match (pattern.has_many(), labels.len()) {
            (true, 1) => "every name".to_owned(),
            (true, n) => format!("every name of at least {n} labels"),
            (false, 1) => "every name of one label".to_owned(),
            (false, n) => format!("every name of {n} labels"),
        };
        sink.warning(codes::ANY_NAME, span, format!("`{pattern}` allows {what}"))
            .help("list the names that the app needs; `mode: report` records them");
        return;
    }
    let suffix = pattern.literal_end();
    if is_public_suffix(&suffix) {
        let message = format!("anyone can have a name below `{suffix}`, and `{pattern}` allows it");
        sink.warning(codes::PUBLIC_SUFFIX, span, message)
            .help("list only subdomains owned by parties you trust");
    }
}

/// Whether a domain is on the public suffix list.
///
/// Unknown top-level domains do not count: the list's default rule would add every private domain,
/// such as `internal`.
fn is_public_suffix(domain: &str) -> bool {
    psl::suffix(domain.as_bytes())
        .is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == domain.as_bytes())
}

fn network(rule: &Rule, net: IpNet, sink: &mut DiagnosticSink) {
    let span = rule.span;
    if net.prefix_len() == 0 {
        let family = if net.addr().is_ipv4() { "IPv4" } else { "IPv6" };
        let message = format!("`{net}` allows every {family} address that is not special");
        sink.warning(codes::ANY_ADDRESS, span, message)
            .help("list the networks that the app needs");
    }
    // Only a rule inside a special block opens the block.
    let opens = |address: IpAddr| {
        net.contains(&address)
            && special::block_of(address).is_none_or(|b| net.prefix_len() >= b.prefix_len)
    };
    if special::block_of(net.network())
        .is_some_and(|b| b.kind == Special::Synthetic && net.prefix_len() >= b.prefix_len)
    {
        let message = format!("`{net}` holds only synthetic addresses, which are never dialled");
        sink.warning(codes::UNREACHABLE_RULE, span, message)
            .help("the guest's resolver gives them to names: write a rule for the names instead");
    }
    for (address, what) in METADATA {
        let Ok(address) = address.parse() else {
            continue;
        };
        if opens(address) {
            let message = format!("the rule reaches {what} at {address}");
            sink.warning(codes::METADATA_ADDRESS, span, message).help(
                "the app can get the credentials of the machine's role there; kms_proxy needs no such rule",
            );
            break;
        }
    }
}
