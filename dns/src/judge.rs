//! Facts meet the policy.

use std::net::IpAddr;
use std::sync::Arc;

use crate::facts::Facts;
use crate::gate::{Denial, Gate, Verdict};

/// What the gate has against something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Objection {
    pub(crate) denial: Denial,
    /// The name in the CNAME chain it is about.
    pub(crate) target: Option<Arc<str>>,
    /// The address it is about.
    pub(crate) address: Option<IpAddr>,
}

impl From<Denial> for Objection {
    fn from(denial: Denial) -> Self {
        Self {
            denial,
            target: None,
            address: None,
        }
    }
}

/// Why facts may not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A name on the way is denied: as if the name asked for were.
    Chain(Objection),
    /// The name may be used, none of its addresses may.
    Addresses(Objection),
}

/// The outcome for one use of facts.
#[derive(Debug)]
pub(crate) struct Judged {
    /// The addresses that may be used; empty if there are none or they were not asked for.
    pub(crate) usable: Result<Vec<IpAddr>, Refusal>,
    /// What would have been refused, had the policy been enforced.
    pub(crate) reported: Option<Objection>,
}

/// Holds `facts` about `name` against the gate.
pub(crate) fn judge(gate: &impl Gate, name: &str, facts: &Facts) -> Judged {
    let mut reported = None;
    for link in &facts.chain {
        let verdict = match &link.target {
            Some(target) => gate.cname_target(target),
            None => Verdict::Deny(Denial::new("bad-name")),
        };
        let object = |denial| Objection {
            target: link.target.clone(),
            ..Objection::from(denial)
        };
        match verdict {
            Verdict::Allow => {}
            Verdict::Report(denial) => {
                reported.get_or_insert_with(|| object(denial));
            }
            Verdict::Deny(denial) => {
                return Judged {
                    usable: Err(Refusal::Chain(object(denial))),
                    reported: None,
                };
            }
        }
    }
    let mut usable = Vec::with_capacity(facts.addresses.len());
    let mut objection = None;
    let mut allowed = 0;
    for &address in &facts.addresses {
        let denial = match gate.address(name, address) {
            Verdict::Allow => {
                allowed += 1;
                usable.push(address);
                continue;
            }
            Verdict::Report(denial) => {
                usable.push(address);
                denial
            }
            Verdict::Deny(denial) => denial,
        };
        objection.get_or_insert_with(|| Objection {
            address: Some(address),
            ..Objection::from(denial)
        });
    }
    match objection {
        Some(objection) if usable.is_empty() => Judged {
            usable: Err(Refusal::Addresses(objection)),
            reported: None,
        },
        // One address that is allowed is enough for the query to be: the others are left out, or
        // recorded by the flow that uses them.
        Some(objection) if allowed == 0 => Judged {
            usable: Ok(usable),
            reported: reported.or(Some(objection)),
        },
        _ => Judged {
            usable: Ok(usable),
            reported,
        },
    }
}
