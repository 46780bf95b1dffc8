//! Why a decision is what it is, for `policyctl explain`: every stage, and the rules that
//! mattered or nearly did. Looks at each rule in turn; decisions are made elsewhere.

use std::net::IpAddr;

use odyn_proto::DnsName;

use crate::condition::Condition;
use crate::decision::{Decision, Destination, Flow};
use crate::denial::{Denial, Reason};
use crate::pattern::{Label, Pattern};
use crate::permit::Target as Opened;
use crate::policy::Policy;
use crate::ports::{Protocol, Protocols};
use crate::rule::{Effect, Rule, RuleRef, Target};
use crate::settings::Mode;
use crate::special;
use crate::special::Special;

/// How a decision came about.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The decision.
    pub verdict: Verdict,
    /// What was looked at, in this order.
    pub stages: Vec<Stage>,
}

/// A decision without the permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The flow may be made.
    Allow {
        /// The rule that allows it; `None` when only `mode: report` lets it pass.
        rule: Option<RuleRef>,
        /// What `mode: enforce` would have said, when that is a denial.
        report: Option<Denial>,
        /// The addresses that may be dialled; empty for the parent's loopback, and when the
        /// addresses were not given.
        addresses: Vec<IpAddr>,
        /// The conditions that the flow's bytes must meet.
        conditions: Vec<Condition>,
    },
    /// It may not.
    Deny(Denial),
}

/// One question that was asked on the way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stage {
    /// The question.
    pub title: String,
    /// The rules that had something to say.
    pub considered: Vec<Considered>,
    /// The answer.
    pub result: String,
}

/// A rule and how it fared.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Considered {
    /// The rule.
    pub rule: RuleRef,
    /// The list that it stands in.
    pub effect: Effect,
    /// Its ports and protocol, when it has any: `443/tcp`.
    pub limits: Option<String>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It decides.
    Decides,
    /// It matches; a more specific or an earlier one decides.
    Matches,
    /// It is for other ports.
    OtherPort,
    /// It is for the other protocol.
    OtherProtocol,
    /// It is wider than the special block, so it does not open it.
    TooWide,
    /// It does not match, though it looks as if it might.
    Near(String),
}

/// Most rules that a stage lists.
const MAX_LISTED: usize = 20;
/// Most rules listed that only look alike.
const MAX_NEAR: usize = 5;

impl Policy {
    /// Explains what [`Policy::decide`] says of a flow.
    #[must_use]
    pub fn explain(&self, flow: &Flow<'_>) -> Explanation {
        let verdict = match self.decide(flow) {
            Decision::Deny(denial) => Verdict::Deny(denial),
            Decision::Allow(permit) => Verdict::Allow {
                rule: permit.rule().cloned(),
                report: permit.report().cloned(),
                addresses: match permit.target() {
                    Opened::Addresses(addresses) => addresses.to_vec(),
                    Opened::Host => Vec::new(),
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

    /// Explains what the rules say of a name as long as its addresses are not known.
    #[must_use]
    pub fn explain_unresolved(&self, name: &DnsName, port: u16, protocol: Protocol) -> Explanation {
        let judged = self.judge_name(name, port, protocol);
        let verdict = match judged {
            Ok((rule, report)) => Verdict::Allow {
                conditions: rule.as_ref().map_or(&[][..], RuleRef::conditions).to_vec(),
                rule,
                report,
                addresses: Vec::new(),
            },
            Err(denial) => Verdict::Deny(denial),
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
                "not given, so not checked: each address that the name resolves to must pass too",
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
            let title = format!("{} rules for host, the parent's loopback", effect.as_str());
            let considered = self.matching(effect, |target| *target == Target::Host);
            self.conclude(&title, effect, considered);
        }
    }

    fn name(&mut self, name: &DnsName, resolved: &[IpAddr]) {
        if name.is_localhost() {
            let result = "localhost names never leave a machine (RFC 6761), whatever the rules say; the parent's loopback is called host";
            self.stage("special names", Vec::new(), result);
        }
        for effect in [Effect::Deny, Effect::Allow] {
            let title = format!("{} rules for the name {name}", effect.as_str());
            let mut considered = self.matching(
                effect,
                |target| matches!(target, Target::Name(pattern) if pattern.matches(name.as_str())),
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
            let covers =
                |target: &Target| matches!(target, Target::Net(net) if net.contains(&address));
            let considered = self.matching(Effect::Deny, covers);
            self.conclude(&format!("deny rules for {what}"), Effect::Deny, considered);
            let block = special::block_of(address);
            let mut allow = self.matching(Effect::Allow, covers);
            if let Some(block) = block {
                for considered in &mut allow {
                    let rule = self.policy.rules().get(considered.rule.id() as usize);
                    let narrow = rule.is_some_and(|rule| {
                        matches!(&rule.target, Target::Net(net) if net.prefix_len() >= block.prefix_len)
                    });
                    if !narrow || block.kind == Special::Synthetic {
                        considered.outcome = Outcome::TooWide;
                    }
                }
                mark_first(&mut allow);
                let opened = allow.iter().any(|c| c.outcome == Outcome::Decides);
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
        let decided = considered.iter().any(|c| c.outcome == Outcome::Decides);
        let result = match (decided, effect) {
            (true, Effect::Allow) => "allowed",
            (true, Effect::Deny) => "denied",
            (false, _) if considered.is_empty() => "none match",
            (false, _) => "none apply",
        };
        self.stage(title, considered, result);
    }

    /// The rules of a list whose target fits, in reporting order.
    fn matching(&self, effect: Effect, fits: impl Fn(&Target) -> bool) -> Vec<Considered> {
        let mut found: Vec<Considered> = self
            .policy
            .numbered_rules()
            .filter(|(_, rule)| rule.effect == effect && fits(&rule.target))
            .filter_map(|(id, rule)| {
                let outcome = if self.port != 0 && rule.matches_port(self.port, self.protocol) {
                    Outcome::Matches
                } else if rule.protocols.contains(self.protocol) {
                    Outcome::OtherPort
                } else {
                    Outcome::OtherProtocol
                };
                self.considered(id, rule, outcome)
            })
            .collect();
        mark_first(&mut found);
        // Those that matter first.
        found.sort_by_key(|c| !matches!(c.outcome, Outcome::Decides | Outcome::Matches));
        found.truncate(MAX_LISTED);
        found
    }

    fn considered(&self, id: u32, rule: &Rule, outcome: Outcome) -> Option<Considered> {
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

    /// Rules that someone might have expected to match a name.
    fn near(&self, name: &DnsName, resolved: &[IpAddr]) -> Vec<Considered> {
        let allow = self
            .policy
            .numbered_rules()
            .filter(|(_, rule)| rule.effect == Effect::Allow);
        let mut found: Vec<Considered> = allow
            .filter_map(|(id, rule)| {
                let why = match &rule.target {
                    Target::Host => None,
                    Target::Name(pattern) => near_name(pattern, name.as_str()),
                    Target::Net(net) => resolved
                        .iter()
                        .any(|a| net.contains(&special::canonical(*a)))
                        .then(|| {
                            "covers an address of the name, but a name needs a name rule".into()
                        }),
                }?;
                self.considered(id, rule, Outcome::Near(why))
            })
            .take(MAX_NEAR)
            .collect();
        found.sort_by_key(|c| c.rule.span());
        found
    }
}

/// Why a pattern does not match a name, when that may surprise.
fn near_name(pattern: &Pattern, name: &str) -> Option<String> {
    let below = |parent: &str| {
        name.strip_suffix(parent)
            .is_some_and(|rest| rest.ends_with('.'))
    };
    match pattern {
        Pattern::Exact(exact) if below(exact.as_str()) => Some(format!(
            "is for {exact} only; **.{exact} is for what is below it"
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

/// The first that matches decides.
fn mark_first(considered: &mut [Considered]) {
    if let Some(first) = considered
        .iter_mut()
        .find(|c| c.outcome == Outcome::Matches)
    {
        first.outcome = Outcome::Decides;
    }
}

impl std::fmt::Display for Outcome {
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

impl Verdict {
    /// Whether the flow may be made.
    #[must_use]
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// Why not, when that is so.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Allow { .. } => None,
            Self::Deny(denial) => Some(denial.reason),
        }
    }
}
