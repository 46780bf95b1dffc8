//! Explanations of decisions, for `policyctl explain`.
//!
//! An explanation has every stage of a decision, with the rules that matched or nearly matched. It
//! looks at each rule in turn. The decision itself comes from [`Policy::decide`].

mod builder;

use std::net::IpAddr;

use odyn_proto::DnsName;

use crate::condition::Condition;
use crate::decision::{Decision, Destination, Flow};
use crate::denial::{Denial, Reason};
use crate::permit::PermitTarget;
use crate::policy::Policy;
use crate::ports::Protocol;
use crate::rule::{Effect, RuleRef};
use builder::ExplanationBuilder;

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
        let mut builder = ExplanationBuilder::new(self, flow.port, flow.protocol);
        builder.port();
        match flow.destination {
            Destination::Host => builder.host(),
            Destination::Name { name, .. } if name.is_host_alias() => builder.host(),
            Destination::Name { name, resolved } => {
                builder.name(name, resolved);
                for address in resolved {
                    builder.address(*address, true);
                }
                if resolved.is_empty() {
                    builder.stage("addresses", Vec::new(), "the name has none");
                }
            }
            Destination::Address(address) => builder.address(address, false),
        }
        builder.mode();
        Explanation {
            verdict,
            stages: builder.stages,
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
        let mut builder = ExplanationBuilder::new(self, port, protocol);
        builder.port();
        if name.is_host_alias() {
            builder.host();
        } else {
            builder.name(name, &[]);
            builder.stage(
                "addresses",
                Vec::new(),
                "not checked; pass `--resolved IP` to check them. Every resolved address must be allowed too",
            );
        }
        builder.mode();
        Explanation {
            verdict,
            stages: builder.stages,
        }
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
