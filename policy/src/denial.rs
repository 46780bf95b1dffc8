//! Refusals. A denial is a decision, not an error.

use std::fmt;

use crate::rule::RuleRef;

/// Why a flow or a name is refused, and by which rule if one had a say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// The rule that denied it, or for [`Reason::Port`], [`Reason::Protocol`] and
    /// [`Reason::SpecialAddress`] the allow rule that would have fitted otherwise.
    pub rule: Option<RuleRef>,
}

impl Denial {
    /// A denial without a rule.
    #[must_use]
    pub fn new(reason: Reason) -> Self {
        Self { reason, rule: None }
    }

    /// A denial that names a rule.
    #[must_use]
    pub fn by(reason: Reason, rule: Option<RuleRef>) -> Self {
        Self { reason, rule }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.as_str())?;
        match &self.rule {
            Some(rule) => write!(f, ": {rule}"),
            None => Ok(()),
        }
    }
}

/// Every reason for which something is refused, by the policy or by those who ask it.
///
/// Exhaustive on purpose: an audit record, a metric label or a DNS error code comes from a match
/// that the compiler checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No allow rule covers the destination.
    NoRule,
    /// A deny rule covers it.
    DenyRule,
    /// An allow rule covers the destination, for other ports.
    Port,
    /// An allow rule covers destination and port, for the other protocol.
    Protocol,
    /// The address is loopback, link-local, multicast or the like, and no rule inside that block
    /// opens it.
    SpecialAddress,
    /// A name that never leaves a machine (`localhost`, RFC 6761).
    SpecialName,
    /// The name has no address.
    NoAddress,
    /// A synthetic address that stands for no name.
    UnknownSynthetic,
    /// Not a name that can be judged.
    BadName,
    /// The TLS ClientHello does not carry the flow's name, and the rule requires it.
    Sni,
    /// Neither TCP nor UDP.
    NotCapturable,
    /// The name leads by CNAME to a name that a rule denies.
    PolicyName,
}

impl Reason {
    /// Every reason, for tables and metrics.
    pub const ALL: [Self; 12] = [
        Self::NoRule,
        Self::DenyRule,
        Self::Port,
        Self::Protocol,
        Self::SpecialAddress,
        Self::SpecialName,
        Self::NoAddress,
        Self::UnknownSynthetic,
        Self::BadName,
        Self::Sni,
        Self::NotCapturable,
        Self::PolicyName,
    ];

    /// The word of the audit record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRule => "no-rule",
            Self::DenyRule => "deny-rule",
            Self::Port => "port",
            Self::Protocol => "protocol",
            Self::SpecialAddress => "special-address",
            Self::SpecialName => "special-name",
            Self::NoAddress => "no-address",
            Self::UnknownSynthetic => "unknown-synthetic",
            Self::BadName => "bad-name",
            Self::Sni => "sni",
            Self::NotCapturable => "not-capturable",
            Self::PolicyName => "policy-name",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
