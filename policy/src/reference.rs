//! The policy's semantics a second time, as plainly as possible: every rule is looked at for every
//! question. For tests and fuzz targets, which compare [`crate::Policy::decide`] with it; nothing
//! here shares code with the index, and names are matched by `globset`.
//!
//! What both sides share is the reading of the file and the order of the rules
//! (`Rule::rank`), which unit tests pin down.

use std::net::{IpAddr, Ipv4Addr};

use globset::{GlobBuilder, GlobMatcher};
use ipnet::IpNet;
use odyn_proto::DnsName;

use crate::condition::Condition;
use crate::decision::{Decision, Destination, Flow};
use crate::denial::Reason;
use crate::permit::{MAX_ADDRESSES, Target as Opened};
use crate::policy::Policy;
use crate::ports::Protocol;
use crate::rule::{Effect, Rule, Target};
use crate::settings::Mode;

/// A decision in a form that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the flow may be made.
    pub allowed: bool,
    /// The line of the rule that is named, if any is.
    pub line: Option<u32>,
    /// Why it is denied, or would be under `mode: enforce`.
    pub reason: Option<Reason>,
    /// What may be dialled.
    pub addresses: Vec<IpAddr>,
    /// The conditions on the flow's bytes.
    pub conditions: Vec<Condition>,
}

impl From<&Decision> for Verdict {
    fn from(decision: &Decision) -> Self {
        match decision {
            Decision::Allow(permit) => Self {
                allowed: true,
                line: permit
                    .rule()
                    .or(permit.report().and_then(|d| d.rule.as_ref()))
                    .map(crate::RuleRef::line),
                reason: permit.report().map(|d| d.reason),
                addresses: match permit.target() {
                    Opened::Addresses(addresses) => addresses.to_vec(),
                    Opened::Host => Vec::new(),
                },
                conditions: permit.conditions().to_vec(),
            },
            Decision::Deny(denial) => Self::denied(No {
                reason: denial.reason,
                line: denial.rule.as_ref().map(crate::RuleRef::line),
            }),
        }
    }
}

/// A denial here: why, and the line of the rule that is named.
#[derive(Clone, Copy)]
struct No {
    reason: Reason,
    line: Option<u32>,
}

impl No {
    fn new(reason: Reason, rule: Option<&Rule>) -> Self {
        Self {
            reason,
            line: rule.map(|rule| rule.span.line),
        }
    }
}

impl Verdict {
    fn denied(no: No) -> Self {
        Self {
            allowed: false,
            line: no.line,
            reason: Some(no.reason),
            addresses: Vec::new(),
            conditions: Vec::new(),
        }
    }
}

/// Whether a flow is allowed, and the line of the rule that is named.
#[must_use]
pub fn decide(policy: &Policy, flow: &Flow<'_>) -> (bool, Option<u32>) {
    let verdict = Reference::new(policy).decide(flow);
    (verdict.allowed, verdict.line)
}

/// What stands in the way of an address, and whether `mode: report` can't help.
type Refusal = (No, bool);

/// A policy with its patterns compiled for the slow way.
pub struct Reference<'a> {
    rules: Vec<(&'a Rule, Option<GlobMatcher>)>,
    report: bool,
}

/// Special blocks as text, the narrower of two that overlap being the one that counts.
const SPECIAL: [&str; 13] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
    "fd00:ec2::/32",
    "fd6f:6479:6e00::/64",
];
const SYNTHETIC: [&str; 2] = ["198.18.0.0/15", "fd6f:6479:6e00::/64"];

fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_default()
}

fn special_block(address: IpAddr) -> Option<IpNet> {
    SPECIAL
        .into_iter()
        .map(net)
        .filter(|block| block.contains(&address))
        .max_by_key(IpNet::prefix_len)
}

fn is_synthetic(address: IpAddr) -> bool {
    SYNTHETIC
        .into_iter()
        .map(net)
        .any(|block| block.contains(&address))
}

/// IPv4-mapped addresses as IPv4.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if net("::ffff:0.0.0.0/96").contains(&address) => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        _ => address,
    }
}

/// The address itself and the IPv4 address inside it.
fn forms(address: IpAddr) -> Vec<IpAddr> {
    let mut forms = vec![address];
    if let IpAddr::V6(v6) = address {
        let octets = v6.octets();
        let [a, b, c, d] = if net("2002::/16").contains(&address) {
            [octets[2], octets[3], octets[4], octets[5]]
        } else {
            [octets[12], octets[13], octets[14], octets[15]]
        };
        let has_v4 = ["2002::/16", "64:ff9b::/96", "::/96"]
            .into_iter()
            .any(|block| net(block).contains(&address));
        if has_v4 && !net("::/127").contains(&address) {
            forms.push(IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
        }
    }
    forms
}

/// A pattern as a path glob: labels become components. `**` is at least one component.
fn matcher(pattern: &str) -> Option<GlobMatcher> {
    let labels: Vec<&str> = pattern.split('.').collect();
    let glob: Vec<&str> = labels
        .iter()
        .enumerate()
        .map(|(i, label)| match *label {
            "**" if i + 1 < labels.len() => "*/**",
            // At the end, `**` matches every component that is there.
            other => other,
        })
        .collect();
    let glob = GlobBuilder::new(&glob.join("/"))
        .literal_separator(true)
        .build();
    Some(glob.ok()?.compile_matcher())
}

impl<'a> Reference<'a> {
    /// Compiles the patterns.
    #[must_use]
    pub fn new(policy: &'a Policy) -> Self {
        let rules = policy.rules().iter().map(|rule| {
            let matcher = match &rule.target {
                Target::Name(pattern) => matcher(&pattern.to_string()),
                Target::Host | Target::Net(_) => None,
            };
            (rule, matcher)
        });
        Self {
            rules: rules.collect(),
            report: policy.settings().mode == Mode::Report,
        }
    }

    fn rules_for_name(&self, name: &DnsName) -> Vec<&'a Rule> {
        let path = name.as_str().replace('.', "/");
        let fits = |(rule, matcher): &&(&'a Rule, Option<GlobMatcher>)| {
            if name.as_str() == "host" {
                rule.target == Target::Host
            } else {
                matcher.as_ref().is_some_and(|m| m.is_match(&path))
            }
        };
        self.rules
            .iter()
            .filter(fits)
            .map(|(rule, _)| *rule)
            .collect()
    }

    fn rules_for_host(&self) -> Vec<&'a Rule> {
        let all = self.rules.iter().map(|(rule, _)| *rule);
        all.filter(|rule| rule.target == Target::Host).collect()
    }

    fn rules_for_address(&self, address: IpAddr) -> Vec<&'a Rule> {
        let all = self.rules.iter().map(|(rule, _)| *rule);
        all.filter(|rule| matches!(&rule.target, Target::Net(net) if net.contains(&address)))
            .collect()
    }

    /// The slow decision.
    #[must_use]
    pub fn decide(&self, flow: &Flow<'_>) -> Verdict {
        let Flow {
            destination,
            port,
            protocol,
        } = *flow;
        if port == 0 {
            return Verdict::denied(No::new(Reason::Port, None));
        }
        match destination {
            Destination::Host => {
                self.verdict(by_rules(&self.rules_for_host(), port, protocol), Vec::new())
            }
            Destination::Name { name, .. } if name.as_str() == "host" => {
                self.verdict(by_rules(&self.rules_for_host(), port, protocol), Vec::new())
            }
            Destination::Name { name, resolved } => self.named(name, resolved, port, protocol),
            Destination::Address(address) => {
                let address = plain(address);
                if is_synthetic(address) {
                    return Verdict::denied(No::new(Reason::UnknownSynthetic, None));
                }
                let rules = self.rules_for_address(address);
                let by_rules = match self.refusal(address, port, protocol) {
                    Some((denial, true)) => return Verdict::denied(denial),
                    Some((denial, false)) => Err(denial),
                    None => by_rules(&rules, port, protocol),
                };
                self.verdict(by_rules, vec![address])
            }
        }
    }

    fn named(&self, name: &DnsName, resolved: &[IpAddr], port: u16, protocol: Protocol) -> Verdict {
        if name.as_str() == "localhost" || name.as_str().ends_with(".localhost") {
            return Verdict::denied(No::new(Reason::SpecialName, None));
        }
        let judged = by_rules(&self.rules_for_name(name), port, protocol);
        if let (Err(denial), false) = (judged, self.report) {
            return Verdict::denied(denial);
        }
        let refusals: Vec<(IpAddr, Option<Refusal>)> = resolved
            .iter()
            .map(|address| plain(*address))
            .map(|address| (address, self.refusal(address, port, protocol)))
            .collect();
        let pick = |wanted: &dyn Fn(&Option<Refusal>) -> bool| -> Vec<IpAddr> {
            let fits = refusals.iter().filter(|(_, refusal)| wanted(refusal));
            fits.map(|(address, _)| *address)
                .take(MAX_ADDRESSES)
                .collect()
        };
        let good = pick(&|refusal| refusal.is_none());
        if !good.is_empty() {
            return self.verdict(judged, good);
        }
        let first = refusals.iter().find_map(|(_, refusal)| *refusal);
        let Some((denial, _)) = first else {
            return Verdict::denied(No::new(Reason::NoAddress, None));
        };
        let bearable = pick(&|refusal| matches!(refusal, Some((_, false))));
        if self.report && !bearable.is_empty() {
            return self.verdict(judged.and(Err(denial)), bearable);
        }
        Verdict::denied(denial)
    }

    fn verdict(&self, judged: Result<&Rule, No>, addresses: Vec<IpAddr>) -> Verdict {
        match judged {
            Ok(rule) => Verdict {
                allowed: true,
                line: Some(rule.span.line),
                reason: None,
                addresses,
                conditions: rule.conditions.to_vec(),
            },
            Err(denial) if self.report => Verdict {
                allowed: true,
                addresses,
                ..Verdict::denied(denial)
            },
            Err(denial) => Verdict::denied(denial),
        }
    }

    fn refusal(&self, address: IpAddr, port: u16, protocol: Protocol) -> Option<Refusal> {
        let fits = |rule: &&&Rule| rule.protocols.contains(protocol) && rule.ports.contains(port);
        let mut deny = Vec::new();
        let mut closed = false;
        let mut near = Vec::new();
        for form in forms(address) {
            let rules = self.rules_for_address(form);
            let list = |effect| {
                rules
                    .iter()
                    .filter(move |r| r.effect == effect)
                    .filter(fits)
            };
            deny.extend(list(Effect::Deny).copied());
            if let Some(block) = special_block(form) {
                let inside =
                    |rule: &&&Rule| matches!(&rule.target, Target::Net(net) if block.contains(net));
                if is_synthetic(form) {
                    near.extend(list(Effect::Allow).copied());
                    closed = true;
                } else {
                    near.extend(list(Effect::Allow).filter(|r| !inside(r)).copied());
                    closed |= !list(Effect::Allow).any(|r| inside(&r));
                }
            }
        }
        if !deny.is_empty() {
            return Some((No::new(Reason::DenyRule, self.first(&deny)), closed));
        }
        closed.then(|| (No::new(Reason::SpecialAddress, self.first(&near)), true))
    }

    /// The first of some rules in the order of all.
    fn first(&self, some: &[&'a Rule]) -> Option<&'a Rule> {
        let all = self.rules.iter().map(|(rule, _)| *rule);
        all.into_iter()
            .find(|rule| some.iter().any(|other| std::ptr::eq(*rule, *other)))
    }

    /// Whether some port is open to a name.
    #[must_use]
    pub fn is_open_name(&self, name: &DnsName) -> bool {
        let rules = self.rules_for_name(name);
        probes(&rules).any(|(port, protocol)| by_rules(&rules, port, protocol).is_ok())
    }

    /// Whether deny rules close a name on every port.
    #[must_use]
    pub fn is_denied_name(&self, name: &DnsName) -> bool {
        is_denied_wholly(&self.rules_for_name(name))
    }

    /// Whether deny rules close an address on every port, as itself or for what is inside it.
    #[must_use]
    pub fn is_denied_address(&self, address: IpAddr) -> bool {
        forms(plain(address))
            .into_iter()
            .any(|form| is_denied_wholly(&self.rules_for_address(form)))
    }
}

fn is_denied_wholly(rules: &[&Rule]) -> bool {
    let mut probes = probes(rules);
    probes.all(|(port, protocol)| {
        rules
            .iter()
            .any(|r| r.effect == Effect::Deny && r.matches_port(port, protocol))
    })
}

/// Ports at which the answer of some rules can change, with both protocols.
fn probes(rules: &[&Rule]) -> impl Iterator<Item = (u16, Protocol)> {
    let mut ports = vec![1];
    for range in rules.iter().flat_map(|rule| rule.ports.ranges()) {
        ports.push(range.first);
        ports.extend(range.last.checked_add(1));
    }
    ports
        .into_iter()
        .flat_map(|port| [(port, Protocol::Tcp), (port, Protocol::Udp)])
}

/// What rules that match a destination say of a port. They come in reporting order.
fn by_rules<'a>(rules: &[&'a Rule], port: u16, protocol: Protocol) -> Result<&'a Rule, No> {
    let denied = |reason, rule: &Rule| Err(No::new(reason, Some(rule)));
    let on_port = |rule: &&&'a Rule| rule.protocols.contains(protocol) && rule.ports.contains(port);
    let mut deny = rules.iter().filter(|r| r.effect == Effect::Deny);
    if let Some(rule) = deny.find(on_port) {
        return denied(Reason::DenyRule, rule);
    }
    let allow = || rules.iter().filter(|r| r.effect == Effect::Allow);
    if let Some(rule) = allow().find(on_port) {
        return Ok(rule);
    }
    if let Some(rule) = allow().find(|rule| rule.ports.contains(port)) {
        return denied(Reason::Protocol, rule);
    }
    match allow().next() {
        Some(rule) => denied(Reason::Port, rule),
        None => Err(No::new(Reason::NoRule, None)),
    }
}
