//! Explanations of decisions, for `policyctl explain`.
//!
//! An explanation has every stage of a decision, with the rules that matched or nearly matched. It
//! looks at each rule in turn. The decision itself comes from [`Policy::decide`].

use std::net::IpAddr;

use odyn_proto::DnsName;

use crate::condition::Condition;
use crate::decision::{Decision, Destination, Flow};
use crate::denial::{Denial, Reason};
use crate::pattern::{Label, Pattern};
use crate::permit::PermitTarget;
use crate::policy::Policy;
use crate::ports::{Protocol, Protocols};
use crate::rule::{Effect, Rule, RuleRef, RuleTarget};
use crate::settings::Mode;
use crate::special;
use crate::special::Special;

/// The explanation of a decision.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The decision.
    pub verdict: ExplainedDecision,
    /// The stages of the decision, in order.
    pub stages: Vec<Stage>,
}

/// A decision without the permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExplainedDecision {
    /// The flow may be made.
    Allow {
        /// The rule that allows it; `None` when only `mode: report` lets it pass.
        rule: Option<RuleRef>,
        /// The denial that `mode: enforce` would have given.
        report: Option<Denial>,
        /// The addresses that may be dialled. Empty for the host's loopback, and when no addresses
        /// were given.
        addresses: Vec<IpAddr>,
        /// The conditions that the flow's bytes must meet.
        conditions: Vec<Condition>,
    },
    /// The flow may not be made.
    Deny(Denial),
}

/// One stage of a decision.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stage {
    /// The question of the stage.
    pub title: String,
    /// The rules that concern it.
    pub considered: Vec<Considered>,
    /// Its result.
    pub result: String,
}

/// A rule, and whether it matched.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Considered {
    /// The rule.
    pub rule: RuleRef,
    /// The list that the rule stands in.
    pub effect: Effect,
    /// The rule's ports and protocol, such as `443/tcp`, if it has any.
    pub limits: Option<String>,
    /// The result for this rule.
    pub outcome: RuleOutcome,
}

/// The result for a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuleOutcome {
    /// The rule decides.
    Decides,
    /// The rule matches, but a more specific or an earlier one decides.
    Matches,
    /// The rule is for other ports.
    OtherPort,
    /// The rule is for the other protocol.
    OtherProtocol,
    /// The rule is wider than the special block, so it does not open the block.
    TooWide,
    /// The rule looks similar but does not match.
    Near(String),
}

/// Most rules that a stage lists.
const MAX_LISTED: usize = 20;
/// Most similar rules that a stage lists.
const MAX_NEAR: usize = 5;

impl Policy {
    /// Explains the decision about a flow.
    #[must_use]
    pub fn explain(&self, flow: &Flow<'_>) -> Explanation {
        let verdict = match self.decide(flow) {
            Decision::Deny(denial) => ExplainedDecision::Deny(denial),
            Decision::Allow(permit) => ExplainedDecision::Allow {
                rule: permit.rule().cloned(),
                report: permit.report().cloned(),
                addresses: match permit.target() {
                    PermitTarget::Addresses(addresses) => addresses.to_vec(),
                    PermitTarget::Host => Vec::new(),
                },
                conditions: permit.conditions().to_vec(),
            },
        };
        let mut teller = Teller::new(self, flow.port, flow.protocol);
        teller.port();
        match flow.destination {
            Destination::Host => teller.host(),
            Destination::Name { name, .. } if name.is_host_alias() => teller.host(),
            Destination::Name { name, resolved } => {
                teller.name(name, resolved);
                for address in resolved {
                    teller.address(*address, true);
                }
                if resolved.is_empty() {
                    teller.stage("addresses", Vec::new(), "the name has none");
                }
            }
            Destination::Address(address) => teller.address(address, false),
        }
        teller.mode();
        Explanation {
            verdict,
            stages: teller.stages,
        }
    }

    /// Explains the decision about a name whose addresses are not known.
    #[must_use]
    pub fn explain_unresolved(&self, name: &DnsName, port: u16, protocol: Protocol) -> Explanation {
        let judged = self.judge_name(name, port, protocol);
        let verdict = match judged {
            Ok((rule, report)) => ExplainedDecision::Allow {
                conditions: rule.as_ref().map_or(&[][..], RuleRef::conditions).to_vec(),
                rule,
                report,
                addresses: Vec::new(),
            },
            Err(denial) => ExplainedDecision::Deny(denial),
        };
        let mut teller = Teller::new(self, port, protocol);
        teller.port();
        if name.is_host_alias() {
            teller.host();
        } else {
            teller.name(name, &[]);
            teller.stage(
                "addresses",
                Vec::new(),
                "not checked; pass `--resolved IP` to check them. Every resolved address must be allowed too",
            );
        }
        teller.mode();
        Explanation {
            verdict,
            stages: teller.stages,
        }
    }
}

struct Teller<'a> {
    policy: &'a Policy,
    port: u16,
    protocol: Protocol,
    stages: Vec<Stage>,
}

impl<'a> Teller<'a> {
    fn new(policy: &'a Policy, port: u16, protocol: Protocol) -> Self {
        Self {
            policy,
            port,
            protocol,
            stages: Vec::new(),
        }
    }

    fn stage(&mut self, title: &str, considered: Vec<Considered>, result: impl Into<String>) {
        self.stages.push(Stage {
            title: title.to_owned(),
            considered,
            result: result.into(),
        });
    }

    fn port(&mut self) {
        if self.port == 0 {
            self.stage("port", Vec::new(), "port 0 is never allowed");
        }
    }

    fn mode(&mut self) {
        if self.policy.settings().mode == Mode::Report {
            self.stage(
                "mode",
                Vec::new(),
                "report: what rules would deny passes and is recorded; special addresses, localhost and port 0 stay denied",
            );
        }
    }

    fn host(&mut self) {
        for effect in [Effect::Deny, Effect::Allow] {
            let title = format!("{} rules for host, the host's loopback", effect.as_str());
            let considered = self.matching(effect, |target| *target == RuleTarget::Host);
            self.conclude(&title, effect, considered);
        }
    }

    fn name(&mut self, name: &DnsName, resolved: &[IpAddr]) {
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

    fn address(&mut self, given: IpAddr, for_name: bool) {
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

impl std::fmt::Display for RuleOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Decides => f.write_str("decides"),
            Self::Matches => f.write_str("matches too"),
            Self::OtherPort => f.write_str("is for other ports"),
            Self::OtherProtocol => f.write_str("is for the other protocol"),
            Self::TooWide => f.write_str("is wider than the special block, so it does not open it"),
            Self::Near(why) => f.write_str(why),
        }
    }
}

impl ExplainedDecision {
    /// Whether the flow may be made.
    #[must_use]
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// The reason, if the flow is denied.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Allow { .. } => None,
            Self::Deny(denial) => Some(denial.reason),
        }
    }
}
