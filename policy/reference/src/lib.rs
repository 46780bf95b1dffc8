//! The policy's decisions a second time, as plainly as possible.
//!
//! Every rule is looked at for every question. Tests and fuzz targets compare [`Policy::decide`]
//! with [`Reference::decide`]. Nothing here shares code with the policy's index, and `globset`
//! matches names.
//!
//! Both sides share the reading of the file and the order in which rules are reported, which unit
//! tests of the policy pin down.

#![forbid(unsafe_code)]

mod addresses;
mod rules;

use std::net::IpAddr;

use odyn_policy::{
    Condition, Decision, Destination, Effect, Flow, MAX_ADDRESSES, Mode, PermitTarget, Policy,
    Protocol, Reason, RuleRef,
};
use odyn_proto::DnsName;

use addresses::{forms, is_synthetic, plain, special_block};
use rules::{RuleDestination, RuleView, by_rules, is_denied_wholly, probes};

/// A decision in a form that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceVerdict {
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

impl From<&Decision> for ReferenceVerdict {
    fn from(decision: &Decision) -> Self {
        match decision {
            Decision::Allow(permit) => Self {
                allowed: true,
                line: permit
                    .rule()
                    .or(permit.report().and_then(|d| d.rule.as_ref()))
                    .map(RuleRef::line),
                reason: permit.report().map(|d| d.reason),
                addresses: match permit.target() {
                    PermitTarget::Addresses(addresses) => addresses.to_vec(),
                    PermitTarget::Host => Vec::new(),
                },
                conditions: permit.conditions().to_vec(),
            },
            Decision::Deny(denial) => Self::denied(ReferenceDenial {
                reason: denial.reason,
                line: denial.rule.as_ref().map(RuleRef::line),
            }),
        }
    }
}

/// A denial: its reason, and the line of the rule that it names.
#[derive(Clone, Copy)]
pub(crate) struct ReferenceDenial {
    reason: Reason,
    line: Option<u32>,
}

impl ReferenceDenial {
    fn new(reason: Reason, rule: Option<&RuleView>) -> Self {
        Self {
            reason,
            line: rule.map(|rule| rule.line),
        }
    }
}

impl ReferenceVerdict {
    fn denied(no: ReferenceDenial) -> Self {
        Self {
            allowed: false,
            line: no.line,
            reason: Some(no.reason),
            addresses: Vec::new(),
            conditions: Vec::new(),
        }
    }
}

/// A refusal of an address, and whether `mode: report` keeps it.
type AddressRefusal = (ReferenceDenial, bool);

/// A policy with its patterns compiled for the slow way.
pub struct Reference {
    rules: Vec<RuleView>,
    report: bool,
}

impl Reference {
    /// Compiles the patterns.
    #[must_use]
    pub fn new(policy: &Policy) -> Self {
        Self {
            rules: policy.rules().map(|rule| RuleView::read(&rule)).collect(),
            report: policy.settings().mode == Mode::Report,
        }
    }

    fn rules_for_name(&self, name: &DnsName) -> Vec<&RuleView> {
        if name.as_str() == "host" {
            return self.rules_for_host();
        }
        let path = name.as_str().replace('.', "/");
        let fits = |rule: &&RuleView| match &rule.destination {
            RuleDestination::Name(matcher) => matcher.as_ref().is_some_and(|m| m.is_match(&path)),
            RuleDestination::Host | RuleDestination::Net(_) => false,
        };
        self.rules.iter().filter(fits).collect()
    }

    fn rules_for_host(&self) -> Vec<&RuleView> {
        self.rules
            .iter()
            .filter(|rule| rule.is_for_host())
            .collect()
    }

    fn rules_for_address(&self, address: IpAddr) -> Vec<&RuleView> {
        let covers = |rule: &&RuleView| rule.net().is_some_and(|net| net.contains(&address));
        self.rules.iter().filter(covers).collect()
    }

    /// The slow decision.
    #[must_use]
    pub fn decide(&self, flow: &Flow<'_>) -> ReferenceVerdict {
        let Flow {
            destination,
            port,
            protocol,
        } = *flow;
        if port == 0 {
            return ReferenceVerdict::denied(ReferenceDenial::new(Reason::Port, None));
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
                    return ReferenceVerdict::denied(ReferenceDenial::new(
                        Reason::UnknownSynthetic,
                        None,
                    ));
                }
                let rules = self.rules_for_address(address);
                let by_rules = match self.refusal(address, port, protocol) {
                    Some((denial, true)) => return ReferenceVerdict::denied(denial),
                    Some((denial, false)) => Err(denial),
                    None => by_rules(&rules, port, protocol),
                };
                self.verdict(by_rules, vec![address])
            }
        }
    }

    fn named(
        &self,
        name: &DnsName,
        resolved: &[IpAddr],
        port: u16,
        protocol: Protocol,
    ) -> ReferenceVerdict {
        if name.as_str() == "localhost" || name.as_str().ends_with(".localhost") {
            return ReferenceVerdict::denied(ReferenceDenial::new(Reason::SpecialName, None));
        }
        let judged = by_rules(&self.rules_for_name(name), port, protocol);
        if let (Err(denial), false) = (judged, self.report) {
            return ReferenceVerdict::denied(denial);
        }
        let refusals: Vec<(IpAddr, Option<AddressRefusal>)> = resolved
            .iter()
            .map(|address| plain(*address))
            .map(|address| (address, self.refusal(address, port, protocol)))
            .collect();
        let pick = |wanted: &dyn Fn(&Option<AddressRefusal>) -> bool| -> Vec<IpAddr> {
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
            return ReferenceVerdict::denied(ReferenceDenial::new(Reason::NoAddress, None));
        };
        let bearable = pick(&|refusal| matches!(refusal, Some((_, false))));
        if self.report && !bearable.is_empty() {
            return self.verdict(judged.and(Err(denial)), bearable);
        }
        ReferenceVerdict::denied(denial)
    }

    fn verdict(
        &self,
        judged: Result<&RuleView, ReferenceDenial>,
        addresses: Vec<IpAddr>,
    ) -> ReferenceVerdict {
        match judged {
            Ok(rule) => ReferenceVerdict {
                allowed: true,
                line: Some(rule.line),
                reason: None,
                addresses,
                conditions: rule.conditions.clone(),
            },
            Err(denial) if self.report => ReferenceVerdict {
                allowed: true,
                addresses,
                ..ReferenceVerdict::denied(denial)
            },
            Err(denial) => ReferenceVerdict::denied(denial),
        }
    }

    fn refusal(&self, address: IpAddr, port: u16, protocol: Protocol) -> Option<AddressRefusal> {
        let fits = |rule: &&&RuleView| rule.matches_port(port, protocol);
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
                let inside = |rule: &&&RuleView| rule.net().is_some_and(|net| block.contains(&net));
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
            return Some((
                ReferenceDenial::new(Reason::DenyRule, self.first(&deny)),
                closed,
            ));
        }
        closed.then(|| {
            (
                ReferenceDenial::new(Reason::SpecialAddress, self.first(&near)),
                true,
            )
        })
    }

    /// The first of some rules in the order of all.
    fn first<'a>(&'a self, some: &[&'a RuleView]) -> Option<&'a RuleView> {
        self.rules
            .iter()
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
