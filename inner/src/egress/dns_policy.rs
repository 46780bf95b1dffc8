//! The policy as the resolver sees it, and the link as its upstream.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use odyn_dns::{AnsweredQuery, Block, DeniedQuery, Gate, Upstream, UpstreamError, Verdict};
use odyn_policy::{HOST_ALIAS, Name, NameDecision, Policy, Reason};

use crate::audit::{Audit, End, Record, Refusal};
use crate::egress::authorize::rule_of;
use crate::egress::link::PermittedLink;

/// The resolver as this executable builds it.
pub type Resolver = odyn_dns::Resolver<DnsPolicy, LinkUpstream>;

/// Answers the resolver's questions from the policy and records what was denied.
pub struct DnsPolicy {
    policy: Arc<Policy>,
    audit: Audit,
}

impl DnsPolicy {
    /// A gate over a policy.
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

impl Gate for DnsPolicy {
    fn name(&self, name: &str) -> Verdict {
        let Ok(name) = Name::parse(name) else {
            return Verdict::Deny(odyn_dns::Denial::new("bad-name"));
        };
        match self.policy.decide_name(&name) {
            NameDecision::Allow(permit) => match permit.report() {
                None => Verdict::Allow,
                Some(denial) => Verdict::Report(convert(denial)),
            },
            NameDecision::Deny(denial) => Verdict::Deny(convert(&denial)),
        }
    }

    fn cname_target(&self, target: &str) -> Verdict {
        // A target that is no host name, such as one with a wildcard label, matches no rule.
        match Name::parse(target)
            .ok()
            .and_then(|name| self.policy.denies_name(&name))
        {
            Some(denial) => Verdict::Deny(convert(&denial)),
            None => Verdict::Allow,
        }
    }

    fn address(&self, name: &str, address: IpAddr) -> Verdict {
        let Ok(name) = Name::parse(name) else {
            return Verdict::Deny(odyn_dns::Denial::new("bad-name"));
        };
        match self.policy.decide_resolved(&name, address) {
            Ok(()) => Verdict::Allow,
            Err(denial) => Verdict::Deny(convert(&denial)),
        }
    }

    fn host_alias(&self, name: &str) -> bool {
        name == HOST_ALIAS
    }

    fn answered(&self, query: AnsweredQuery<'_>) {
        if !self.audit.is_kept() {
            return;
        }
        let rule =
            Name::parse(query.name)
                .ok()
                .and_then(|name| match self.policy.decide_name(&name) {
                    NameDecision::Allow(permit) => permit.rule().map(rule_of),
                    NameDecision::Deny(_) => None,
                });
        let mut record = self.record(query.name, query.qtype, query.duration);
        record.allowed(rule, None);
        record.ended(End::Answered);
    }

    fn denied(&self, query: DeniedQuery<'_>) {
        let record = self.record(query.name, query.qtype, query.duration);
        let refusal = Refusal {
            reason: query.denial.reason,
            rule: query.denial.rule.clone(),
            line: query.denial.line,
        };
        if query.enforced {
            record.denied(refusal);
        } else {
            record.reported(refusal);
        }
    }
}

fn convert(denial: &odyn_policy::Denial) -> odyn_dns::Denial {
    let mut converted = odyn_dns::Denial::new(denial.reason.as_str());
    if denial.reason == Reason::DenyRule {
        converted.block = Block::Filtered;
    }
    if let Some(rule) = &denial.rule {
        converted.rule = Some(rule.text().into());
        converted.line = Some(rule.line());
    }
    converted
}

/// Asks the host's resolver through the link.
pub struct LinkUpstream {
    link: PermittedLink,
}

impl LinkUpstream {
    /// An upstream behind the link.
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
