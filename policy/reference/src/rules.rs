//! Rules, read back from the policy, and what they say of a port.

use std::net::IpAddr;

use globset::{GlobBuilder, GlobMatcher};
use ipnet::IpNet;
use odyn_policy::{Condition, Effect, Protocol, Reason, RuleRef};

use crate::ReferenceDenial;

/// A rule, read back from the policy.
pub(crate) struct RuleView {
    pub(crate) effect: Effect,
    pub(crate) destination: RuleDestination,
    pub(crate) ports: Vec<(u16, u16)>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) line: u32,
}

/// The destination of a rule.
pub(crate) enum RuleDestination {
    Host,
    Net(IpNet),
    /// A glob over paths of labels; `None` if `globset` cannot read the pattern.
    Name(Option<GlobMatcher>),
}

impl RuleView {
    pub(crate) fn read(rule: &RuleRef) -> Self {
        let text = rule.destination();
        let destination = if text == "host" {
            RuleDestination::Host
        } else if let Ok(net) = text.parse() {
            RuleDestination::Net(net)
        } else if let Ok(address) = text.parse::<IpAddr>() {
            RuleDestination::Net(address.into())
        } else {
            RuleDestination::Name(matcher(&text))
        };
        Self {
            effect: rule.effect(),
            destination,
            ports: rule.ports().collect(),
            protocol: rule.protocol(),
            conditions: rule.conditions().to_vec(),
            line: rule.line(),
        }
    }

    pub(crate) fn is_for_host(&self) -> bool {
        matches!(self.destination, RuleDestination::Host)
    }

    pub(crate) fn net(&self) -> Option<IpNet> {
        match &self.destination {
            RuleDestination::Net(net) => Some(*net),
            RuleDestination::Host | RuleDestination::Name(_) => None,
        }
    }

    pub(crate) fn has_port(&self, port: u16) -> bool {
        let fits = |(first, last): &(u16, u16)| *first <= port && port <= *last;
        self.ports.iter().any(fits)
    }

    pub(crate) fn matches_port(&self, port: u16, protocol: Protocol) -> bool {
        self.protocol.is_none_or(|only| only == protocol) && self.has_port(port)
    }
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

pub(crate) fn is_denied_wholly(rules: &[&RuleView]) -> bool {
    let mut probes = probes(rules);
    probes.all(|(port, protocol)| {
        rules
            .iter()
            .any(|r| r.effect == Effect::Deny && r.matches_port(port, protocol))
    })
}

/// Ports at which the answer of some rules can change, with both protocols.
pub(crate) fn probes(rules: &[&RuleView]) -> impl Iterator<Item = (u16, Protocol)> {
    let mut ports = vec![1];
    for (first, last) in rules.iter().flat_map(|rule| &rule.ports) {
        ports.push(*first);
        ports.extend(last.checked_add(1));
    }
    ports
        .into_iter()
        .flat_map(|port| [(port, Protocol::Tcp), (port, Protocol::Udp)])
}

/// What rules that match a destination say of a port. They come in reporting order.
pub(crate) fn by_rules<'a>(
    rules: &[&'a RuleView],
    port: u16,
    protocol: Protocol,
) -> Result<&'a RuleView, ReferenceDenial> {
    let denied = |reason, rule: &RuleView| Err(ReferenceDenial::new(reason, Some(rule)));
    let on_port = |rule: &&&RuleView| rule.matches_port(port, protocol);
    let mut deny = rules.iter().filter(|r| r.effect == Effect::Deny);
    if let Some(rule) = deny.find(on_port) {
        return denied(Reason::DenyRule, rule);
    }
    let allow = || rules.iter().filter(|r| r.effect == Effect::Allow);
    if let Some(rule) = allow().find(on_port) {
        return Ok(rule);
    }
    if let Some(rule) = allow().find(|rule| rule.has_port(port)) {
        return denied(Reason::Protocol, rule);
    }
    match allow().next() {
        Some(rule) => denied(Reason::Port, rule),
        None => Err(ReferenceDenial::new(Reason::NoRule, None)),
    }
}
