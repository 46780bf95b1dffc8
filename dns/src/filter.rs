//! Applies the policy to an upstream answer.

use std::net::IpAddr;

use odyn_proto::DnsName;

use crate::name_policy::{NamePolicy, NameVerdict, QueryDenial};
use crate::upstream_answer::{Alias, AliasTarget, UpstreamAnswer};

/// A denial, and the part of the answer that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Objection {
    pub(crate) denial: QueryDenial,
    /// The name in the CNAME chain.
    pub(crate) target: Option<DnsName>,
    /// The address.
    pub(crate) address: Option<IpAddr>,
}

impl From<QueryDenial> for Objection {
    fn from(denial: QueryDenial) -> Self {
        Self {
            denial,
            target: None,
            address: None,
        }
    }
}

/// Why an answer may not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FilterRefusal {
    /// A name of the CNAME chain is denied, and so is the query.
    Chain(Objection),
    /// The name may be used, but none of its addresses.
    Addresses(Objection),
}

/// The part of an answer that one query may use.
#[derive(Debug)]
pub(crate) struct Filtered {
    /// The addresses that may be used; empty if there are none or they were not asked for.
    pub(crate) usable: Result<Vec<IpAddr>, FilterRefusal>,
    /// What would have been refused, had the policy been enforced.
    pub(crate) reported: Option<Objection>,
}

/// Checks each name and address of an answer about `name` against the policy.
pub(crate) fn filter(
    policy: &impl NamePolicy,
    name: &DnsName,
    answer: &UpstreamAnswer,
) -> Filtered {
    let mut reported = None;
    for alias in &answer.chain {
        let object = |denial| Objection {
            target: alias.target.known().cloned(),
            ..Objection::from(denial)
        };
        match alias_verdict(policy, alias) {
            NameVerdict::Allow(()) => {}
            NameVerdict::Report(denial) => {
                reported.get_or_insert_with(|| object(denial));
            }
            NameVerdict::Deny(denial) => {
                return Filtered {
                    usable: Err(FilterRefusal::Chain(object(denial))),
                    reported: None,
                };
            }
        }
    }
    let mut usable = Vec::with_capacity(answer.addresses.len());
    let mut objection = None;
    let mut allowed = 0;
    for &address in &answer.addresses {
        let denial = match policy.address(name, address) {
            NameVerdict::Allow(()) => {
                allowed += 1;
                usable.push(address);
                continue;
            }
            NameVerdict::Report(denial) => {
                usable.push(address);
                denial
            }
            NameVerdict::Deny(denial) => denial,
        };
        objection.get_or_insert_with(|| Objection {
            address: Some(address),
            ..Objection::from(denial)
        });
    }
    match objection {
        Some(objection) if usable.is_empty() => Filtered {
            usable: Err(FilterRefusal::Addresses(objection)),
            reported: None,
        },
        // One allowed address is enough to allow the query. The flow that uses another address
        // records that itself.
        Some(objection) if allowed == 0 => Filtered {
            usable: Ok(usable),
            reported: reported.or(Some(objection)),
        },
        _ => Filtered {
            usable: Ok(usable),
            reported,
        },
    }
}

fn alias_verdict(policy: &impl NamePolicy, alias: &Alias) -> NameVerdict {
    match &alias.target {
        AliasTarget::Name(target) => policy.cname_target(target),
        // No rule can match such a name, so none can deny it.
        AliasTarget::Unmatched => NameVerdict::Allow(()),
        AliasTarget::Bad => NameVerdict::Deny(QueryDenial::new("bad-name")),
    }
}
