//! The stages of an explanation.

use std::net::IpAddr;

use odyn_proto::DnsName;

use super::{Considered, RuleOutcome, Stage};
use crate::pattern::{Label, Pattern};
use crate::policy::Policy;
use crate::ports::{Protocol, Protocols};
use crate::rule::{Effect, Rule, RuleTarget};
use crate::settings::Mode;
use crate::special;
use crate::special::Special;

/// Most rules that a stage lists.
const MAX_LISTED: usize = 20;
/// Most similar rules that a stage lists.
const MAX_NEAR: usize = 5;

/// Builds an explanation stage by stage.
pub(super) struct ExplanationBuilder<'a> {
    policy: &'a Policy,
    port: u16,
    protocol: Protocol,
    pub(super) stages: Vec<Stage>,
}

impl<'a> ExplanationBuilder<'a> {
    pub(super) fn new(policy: &'a Policy, port: u16, protocol: Protocol) -> Self {
        Self {
            policy,
            port,
            protocol,
            stages: Vec::new(),
        }
    }

    pub(super) fn stage(
        &mut self,
        title: &str,
        considered: Vec<Considered>,
        result: impl Into<String>,
    ) {
        self.stages.push(Stage {
            title: title.to_owned(),
            considered,
            result: result.into(),
        });
    }

    pub(super) fn port(&mut self) {
        if self.port == 0 {
            self.stage("port", Vec::new(), "port 0 is never allowed");
        }
    }

    pub(super) fn mode(&mut self) {
        if self.policy.settings().mode == Mode::Report {
            self.stage(
                "mode",
                Vec::new(),
                "report: what rules would deny passes and is recorded; special addresses, localhost and port 0 stay denied",
            );
        }
    }

    pub(super) fn host(&mut self) {
        for effect in [Effect::Deny, Effect::Allow] {
            let title = format!("{} rules for host, the host's loopback", effect.as_str());
            let considered = self.matching(effect, |target| *target == RuleTarget::Host);
            self.conclude(&title, effect, considered);
        }
    }

    pub(super) fn name(&mut self, name: &DnsName, resolved: &[IpAddr]) {
        if name.is_localhost() {
            let result = "names below localhost never leave a machine (RFC 6761), whatever the rules say; `host` is the host's loopback";
            self.stage("special names", Vec::new(), result);
        }
        for effect in [Effect::Deny, Effect::Allow] {
            let title = format!("{} rules for the name {name}", effect.as_str());
            let mut considered = self.matching(
                effect,
                |target| matches!(target, RuleTarget::Name(pattern) if pattern.matches(name.as_str())),
            );
            if effect == Effect::Allow && considered.is_empty() {
                considered = self.near(name, resolved);
            }
            self.conclude(&title, effect, considered);
        }
    }

    pub(super) fn address(&mut self, given: IpAddr, for_name: bool) {
        let address = special::canonical(given);
        let mut forms = vec![(address, format!("the address {given}"))];
        if address != given {
            forms = vec![(address, format!("the address {given}, which is {address}"))];
        }
        if let Some(v4) = special::embedded_v4(address) {
            forms.push((IpAddr::V4(v4), format!("{v4}, which {address} leads to")));
        }
        for (i, (address, what)) in forms.into_iter().enumerate() {
            let covers = |target: &RuleTarget| matches!(target, RuleTarget::Net(net) if net.contains(&address));
            let considered = self.matching(Effect::Deny, covers);
            self.conclude(&format!("deny rules for {what}"), Effect::Deny, considered);
            let block = special::block_of(address);
            let mut allow = self.matching(Effect::Allow, covers);
            if let Some(block) = block {
                for considered in &mut allow {
                    let rule = self.policy.rule_list().get(considered.rule.id() as usize);
                    let narrow = rule.is_some_and(|rule| {
                        matches!(&rule.target, RuleTarget::Net(net) if net.prefix_len() >= block.prefix_len)
                    });
                    if !narrow || block.kind == Special::Synthetic {
                        considered.outcome = RuleOutcome::TooWide;
                    }
                }
                mark_first(&mut allow);
                let opened = allow.iter().any(|c| c.outcome == RuleOutcome::Decides);
                let result = match (opened, block.kind) {
                    (true, _) => "opened by a rule inside the block",
                    (false, Special::Synthetic) => "never dialled, and nothing opens it",
                    (false, _) => {
                        "closed: only a rule for an address or network inside the block opens it"
                    }
                };
                let title = format!("{what} is special: {}", block.kind.as_str());
                self.stage(&title, allow, result);
            } else if !for_name && i == 0 {
                self.conclude(&format!("allow rules for {what}"), Effect::Allow, allow);
            }
        }
    }

    fn conclude(&mut self, title: &str, effect: Effect, considered: Vec<Considered>) {
        let decided = considered.iter().any(|c| c.outcome == RuleOutcome::Decides);
        let result = match (decided, effect) {
            (true, Effect::Allow) => "allowed",
            (true, Effect::Deny) => "denied",
            (false, _) if considered.is_empty() => "none match",
            (false, _) => "none apply",
        };
        self.stage(title, considered, result);
    }

    /// The rules of a list whose target fits, in reporting order.
    fn matching(&self, effect: Effect, fits: impl Fn(&RuleTarget) -> bool) -> Vec<Considered> {
        let mut found: Vec<Considered> = self
            .policy
            .numbered_rules()
            .filter(|(_, rule)| rule.effect == effect && fits(&rule.target))
            .filter_map(|(id, rule)| {
                let outcome = if self.port != 0 && rule.matches_port(self.port, self.protocol) {
                    RuleOutcome::Matches
                } else if rule.protocols.contains(self.protocol) {
                    RuleOutcome::OtherPort
                } else {
                    RuleOutcome::OtherProtocol
                };
                self.considered(id, rule, outcome)
            })
            .collect();
        mark_first(&mut found);
        // Rules that match come first.
        found.sort_by_key(|c| !matches!(c.outcome, RuleOutcome::Decides | RuleOutcome::Matches));
        found.truncate(MAX_LISTED);
        found
    }

    fn considered(&self, id: u32, rule: &Rule, outcome: RuleOutcome) -> Option<Considered> {
        let limits = (!rule.is_unrestricted()).then(|| match rule.protocols {
            Protocols::Any => rule.ports.to_string(),
            Protocols::Only(only) => format!("{}/{only}", rule.ports),
        });
        Some(Considered {
            rule: self.policy.reference(id)?,
            effect: rule.effect,
            limits,
            outcome,
        })
    }

    /// Rules that look similar to a name but do not match it.
    fn near(&self, name: &DnsName, resolved: &[IpAddr]) -> Vec<Considered> {
        let allow = self
            .policy
            .numbered_rules()
            .filter(|(_, rule)| rule.effect == Effect::Allow);
        let mut found: Vec<Considered> = allow
            .filter_map(|(id, rule)| {
                let why = match &rule.target {
                    RuleTarget::Host => None,
                    RuleTarget::Name(pattern) => near_name(pattern, name.as_str()),
                    RuleTarget::Net(net) => resolved
                        .iter()
                        .any(|a| net.contains(&special::canonical(*a)))
                        .then(|| {
                            "covers an address of the name, but a name needs a name rule".into()
                        }),
                }?;
                self.considered(id, rule, RuleOutcome::Near(why))
            })
            .take(MAX_NEAR)
            .collect();
        found.sort_by_key(|c| c.rule.span());
        found
    }
}

/// The reason why a similar pattern does not match a name.
fn near_name(pattern: &Pattern, name: &str) -> Option<String> {
    let below = |parent: &str| {
        name.strip_suffix(parent)
            .is_some_and(|rest| rest.ends_with('.'))
    };
    match pattern {
        Pattern::Exact(exact) if below(exact.as_str()) => Some(format!(
            "is for {exact} only; **.{exact} is for names below it"
        )),
        Pattern::Exact(exact) => {
            let near = strsim::damerau_levenshtein(exact.as_str(), name) <= 2;
            near.then(|| "is spelled differently".to_owned())
        }
        Pattern::Wild(labels) => {
            let (first, rest) = labels.split_first()?;
            let parent = rest
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(".");
            if parent.is_empty() || parent.contains('*') {
                return None;
            }
            match first {
                Label::One | Label::Many if name == parent => Some(format!(
                    "is for names below {parent}, not for {parent} itself"
                )),
                Label::One if below(&parent) => Some(format!(
                    "`*` is exactly one label; **.{parent} is for any number"
                )),
                _ => None,
            }
        }
    }
}

/// Marks the first rule that matches: it decides.
fn mark_first(considered: &mut [Considered]) {
    if let Some(first) = considered
        .iter_mut()
        .find(|c| c.outcome == RuleOutcome::Matches)
    {
        first.outcome = RuleOutcome::Decides;
    }
}
