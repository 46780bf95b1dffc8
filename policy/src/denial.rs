//! Denials. A denial is a decision, not an error.

use std::fmt;

use crate::rule::RuleRef;

/// A refusal of a flow or a name, with the rule that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The reason.
    pub reason: Reason,
    /// The rule that denies it. For [`Reason::Port`], [`Reason::Protocol`] and
    /// [`Reason::SpecialAddress`]: the allow rule that would match otherwise.
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

/// A reason for a denial, by the policy or by the code that asks it.
///
/// Exhaustive on purpose: an audit record, a metric label or a DNS error code comes from a match
/// that the compiler checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No allow rule covers the destination.
    NoRule,
    /// A deny rule covers the destination.
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
    /// The name is not a valid DNS name.
    BadName,
    /// The TLS ClientHello does not carry the flow's name, and the rule requires it.
    Sni,
    /// The protocol is neither TCP nor UDP.
    NotCapturable,
}

impl Reason {
    /// Every reason, for tables and metrics.
    pub const ALL: [Self; 11] = [
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
    ];

    /// The reason as audit records have it.
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
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
