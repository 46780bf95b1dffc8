//! Connects the resolver to the policy, and to the host as its upstream.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use odyn_dns::{
    AnsweredQuery, BlockKind, DeniedQuery, MatchedRule, NamePolicy, NameVerdict, QueryDenial,
    Upstream, UpstreamError,
};
use odyn_policy::{Denial, NameDecision, Policy, Reason, RuleRef};
use odyn_proto::DnsName;

use crate::audit::{Audit, End, Record, Refusal};
use crate::egress::link::PermittedLink;

/// The resolver, with the policy and the link plugged in.
pub type Resolver = odyn_dns::Resolver<DnsPolicy, LinkUpstream>;

/// Answers the resolver's questions from the policy and records denied queries.
pub struct DnsPolicy {
    policy: Arc<Policy>,
    audit: Audit,
}

impl DnsPolicy {
    /// Makes a gate over a policy.
    pub fn new(policy: Arc<Policy>, audit: Audit) -> Self {
        Self { policy, audit }
    }

    fn record(&self, name: &str, qtype: impl Display, duration: Duration) -> Record {
        let mut record = self.audit.flow("dns", format_args!("{name} {qtype}"));
        record.began(duration);
        record.name(name.into());
        record
    }
}

impl NamePolicy for DnsPolicy {
    fn name(&self, name: &DnsName) -> NameVerdict<Option<MatchedRule>> {
        match self.policy.decide_name(name) {
            NameDecision::Allow(permit) => match permit.report() {
                None => NameVerdict::Allow(permit.rule().map(matched)),
                Some(denial) => NameVerdict::Report(query_denial(denial)),
            },
            NameDecision::Deny(denial) => NameVerdict::Deny(query_denial(&denial)),
        }
    }

    fn cname_target(&self, target: &DnsName) -> NameVerdict {
        match self.policy.denies_name(target) {
            Some(denial) => NameVerdict::Deny(query_denial(&denial)),
            None => NameVerdict::Allow(()),
        }
    }

    fn address(&self, name: &DnsName, address: IpAddr) -> NameVerdict {
        match self.policy.decide_resolved(name, address) {
            Ok(()) => NameVerdict::Allow(()),
            Err(denial) => NameVerdict::Deny(query_denial(&denial)),
        }
    }

    fn answered(&self, query: AnsweredQuery<'_>) {
        if !self.audit.is_kept() {
            return;
        }
        let rule = query.rule.map(|rule| (Arc::clone(&rule.text), rule.line));
        let mut record = self.record(query.name, query.qtype, query.duration);
        record.allowed(rule, None);
        record.ended(End::Answered);
    }

    fn denied(&self, query: DeniedQuery<'_>) {
        let record = self.record(query.name, query.qtype, query.duration);
        let refusal = Refusal::from(query.denial);
        if query.enforced {
            record.denied(refusal);
        } else {
            record.reported(refusal);
        }
    }
}

/// A rule in the form that the resolver carries to the record.
fn matched(rule: &RuleRef) -> MatchedRule {
    MatchedRule {
        text: rule.shared_text(),
        line: rule.line(),
    }
}

/// A denial in the form that the resolver answers and records.
fn query_denial(denial: &Denial) -> QueryDenial {
    QueryDenial {
        reason: denial.reason.as_str(),
        rule: denial.rule.as_ref().map(matched),
        block: match denial.reason {
            Reason::DenyRule => BlockKind::Filtered,
            _ => BlockKind::Blocked,
        },
    }
}

impl From<&QueryDenial> for Refusal {
    fn from(denial: &QueryDenial) -> Self {
        let rule = denial.rule.as_ref();
        Self {
            reason: denial.reason,
            rule: rule.map(|rule| Arc::clone(&rule.text)),
            line: rule.map(|rule| rule.line),
        }
    }
}

impl From<&Denial> for Refusal {
    fn from(denial: &Denial) -> Self {
        let rule = denial.rule.as_ref();
        Self {
            reason: denial.reason.as_str(),
            rule: rule.map(RuleRef::shared_text),
            line: rule.map(RuleRef::line),
        }
    }
}

/// Asks the host's resolver over the link.
pub struct LinkUpstream {
    link: PermittedLink,
}

impl LinkUpstream {
    /// Makes an upstream over the link.
    pub fn new(link: PermittedLink) -> Self {
        Self { link }
    }
}

impl Upstream for LinkUpstream {
    async fn exchange(&self, query: Bytes) -> Result<Bytes, UpstreamError> {
        self.link
            .dns(query)
            .await
            .map_err(|error| UpstreamError::Unavailable(Some(Box::new(error))))
    }
}
