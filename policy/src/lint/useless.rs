//! Deny rules that deny nothing that would be allowed without them.
//!
//! A deny rule can be useful although no allow rule overlaps with it: rules for names also end
//! CNAME chains, and rules for addresses apply to the addresses of allowed names.

use std::collections::{BTreeSet, HashSet};

use ipnet::IpNet;
use odyn_proto::DnsName;

use crate::codes;
use crate::diagnostic::DiagnosticSink;
use crate::index::nets;
use crate::pattern::Pattern;
use crate::policy::Policy;
use crate::ports::Protocol;
use crate::rule::{Effect, Rule, RuleTarget};
use crate::settings::PolicySettings;

pub(super) fn run(rules: &[Rule], sink: &mut DiagnosticSink) {
    if !rules.iter().any(|rule| rule.effect == Effect::Deny) {
        return;
    }
    let allowed = Allowed::build(rules);
    for rule in rules.iter().filter(|rule| rule.effect == Effect::Deny) {
        if rule.ports.ranges().is_empty() || allowed.may_meet(rule) {
            continue;
        }
        let message = format!("no rule allows anything that `{}` denies", rule.target);
        sink.warning(codes::USELESS_DENY, rule.span, message).help(
            "everything without an allow rule is denied: remove the rule, or check its spelling",
        );
    }
}

/// An approximation of what the allow rules reach, from above.
struct Allowed<'a> {
    /// The allow rules by name.
    policy: Policy,
    host: Vec<&'a Rule>,
    has_names: bool,
    /// The literal ends of patterns with stars.
    wild_suffixes: HashSet<String>,
    /// Every parent domain of an allowed name.
    parents: HashSet<String>,
    networks: BTreeSet<(bool, u128, u128)>,
}

impl<'a> Allowed<'a> {
    fn build(rules: &'a [Rule]) -> Self {
        let allow: Vec<&Rule> = rules.iter().filter(|r| r.effect == Effect::Allow).collect();
        let mut this = Self {
            policy: Policy::compile(
                "",
                PolicySettings::default(),
                allow.iter().map(|rule| (*rule).clone()).collect(),
            ),
            host: Vec::new(),
            has_names: false,
            wild_suffixes: HashSet::new(),
            parents: HashSet::new(),
            networks: BTreeSet::new(),
        };
        for rule in allow {
            match &rule.target {
                RuleTarget::Host => this.host.push(rule),
                RuleTarget::Net(net) => {
                    this.networks.insert(bounds(*net));
                }
                RuleTarget::Name(pattern) => {
                    this.has_names = true;
                    let suffix = pattern.literal_end();
                    let mut rest = suffix.as_str();
                    if let Pattern::Wild(_) = pattern {
                        this.wild_suffixes.insert(suffix.clone());
                        this.parents.insert(suffix.clone());
                    }
                    while let Some((_, parent)) = rest.split_once('.') {
                        this.parents.insert(parent.to_owned());
                        rest = parent;
                    }
                    this.parents.insert(String::new());
                }
            }
        }
        this
    }

    /// Whether the rule may deny something that is allowed.
    fn may_meet(&self, deny: &Rule) -> bool {
        match &deny.target {
            RuleTarget::Host => self.host.iter().any(|allow| {
                allow.ports.overlaps(&deny.ports) && allow.protocols.overlaps(deny.protocols)
            }),
            // The addresses of allowed names are not known.
            RuleTarget::Net(net) => self.has_names || self.reaches(*net),
            // The target of a CNAME is refused when it is denied on every port.
            RuleTarget::Name(_) if self.has_names && deny.is_unrestricted() => true,
            RuleTarget::Name(Pattern::Exact(name)) => self.allows_on(name, deny),
            RuleTarget::Name(pattern) => {
                let suffix = pattern.literal_end();
                self.parents.contains(&suffix) || self.has_wild_above(&suffix)
            }
        }
    }

    fn allows_on(&self, name: &DnsName, deny: &Rule) -> bool {
        let protocols = [Protocol::Tcp, Protocol::Udp];
        protocols
            .into_iter()
            .filter(|protocol| deny.protocols.contains(*protocol))
            .any(|protocol| {
                let ranges = deny.ports.ranges();
                ranges.iter().any(|range| {
                    self.policy
                        .allows_between(name, range.first, range.last, protocol)
                })
            })
    }

    fn has_wild_above(&self, suffix: &str) -> bool {
        let mut rest = Some(suffix);
        while let Some(suffix) = rest {
            if self.wild_suffixes.contains(suffix) {
                return true;
            }
            rest = suffix.split_once('.').map(|(_, parent)| parent);
        }
        self.wild_suffixes.contains("")
    }

    /// Whether an allowed network overlaps with this one. Networks overlap only by nesting.
    fn reaches(&self, net: IpNet) -> bool {
        let (is_v4, first, last) = bounds(net);
        let inside = (is_v4, first, 0)..=(is_v4, last, u128::MAX);
        let around = || {
            std::iter::successors(net.supernet(), IpNet::supernet)
                .any(|wider| self.networks.contains(&bounds(wider)))
        };
        self.networks.range(inside).next().is_some() || around()
    }
}

fn bounds(net: IpNet) -> (bool, u128, u128) {
    let (first, last) = (
        nets::as_number(net.network()),
        nets::as_number(net.broadcast()),
    );
    (net.addr().is_ipv4(), first, last)
}
