//! What the policy says of a flow. A permission is a value: only [`crate::Policy::decide`] can
//! make a [`Permit`], and the door to the link takes nothing else.

use std::fmt;
use std::net::IpAddr;

use crate::name::Name;
use crate::ports::Protocol;
use crate::rule::RuleRef;

/// Where a flow wants to go.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// An address that the program used as such.
    Address(IpAddr),
    /// A name, and the addresses it resolves to.
    Name {
        /// The name that the program asked for.
        name: &'a Name,
        /// What it resolves to now, in the order in which they should be tried.
        resolved: &'a [IpAddr],
    },
    /// The parent's loopback.
    Host,
}

/// One flow, before it exists.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// Where to.
    pub destination: Destination<'a>,
    /// Destination port.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// What the policy says.
#[must_use]
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once a flow on the stack: a box would be the allocation that decide avoids"
)]
pub enum Decision {
    /// The flow may be made, to what the permit says and nothing else.
    Allow(Permit),
    /// It may not.
    Deny(Denial),
}

impl Decision {
    /// Whether the flow may be made.
    #[must_use]
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// Most addresses that a permit holds; further ones are dropped.
pub const MAX_ADDRESSES: usize = 16;

/// The permission to make one flow. There is no other way to one than [`crate::Policy::decide`].
#[derive(Clone)]
pub struct Permit {
    target: PermitTarget,
    port: u16,
    protocol: Protocol,
    rule: Option<RuleRef>,
    report: Option<Denial>,
    sni_required: bool,
}

#[derive(Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would be an allocation for each flow"
)]
enum PermitTarget {
    Host,
    Addresses(Addresses),
}

/// What a permit opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// These addresses, at least one, in the order in which they should be tried.
    Addresses(&'a [IpAddr]),
    /// The parent's loopback.
    Host,
}

impl Permit {
    pub(crate) fn host(port: u16, protocol: Protocol) -> Self {
        Self::new(PermitTarget::Host, port, protocol)
    }

    pub(crate) fn addresses(addresses: Addresses, port: u16, protocol: Protocol) -> Self {
        Self::new(PermitTarget::Addresses(addresses), port, protocol)
    }

    fn new(target: PermitTarget, port: u16, protocol: Protocol) -> Self {
        Self {
            target,
            port,
            protocol,
            rule: None,
            report: None,
            sni_required: false,
        }
    }

    pub(crate) fn with_rule(mut self, rule: RuleRef, sni_required: bool) -> Self {
        self.rule = Some(rule);
        self.sni_required = sni_required;
        self
    }

    pub(crate) fn with_report(mut self, denial: Option<Denial>) -> Self {
        self.report = denial;
        self
    }

    /// What may be dialled.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        match &self.target {
            PermitTarget::Host => Target::Host,
            PermitTarget::Addresses(addresses) => Target::Addresses(addresses.as_slice()),
        }
    }

    /// The only port that may be dialled.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The only protocol that may be used.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The rule that allows the flow; `None` when only `mode: report` let it pass.
    #[must_use]
    pub fn rule(&self) -> Option<&RuleRef> {
        self.rule.as_ref()
    }

    /// What would have been said under `mode: enforce`, when that is a denial.
    #[must_use]
    pub fn report(&self) -> Option<&Denial> {
        self.report.as_ref()
    }

    /// Whether the flow must start with a TLS ClientHello that carries the flow's name.
    #[must_use]
    pub fn sni_required(&self) -> bool {
        self.sni_required
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("target", &self.target())
            .field("port", &self.port)
            .field("protocol", &self.protocol)
            .field("rule", &self.rule)
            .field("report", &self.report)
            .field("sni_required", &self.sni_required)
            .finish()
    }
}

/// A short list of addresses that lives where it is made.
#[derive(Clone)]
pub(crate) struct Addresses {
    list: [IpAddr; MAX_ADDRESSES],
    len: usize,
}

impl Addresses {
    pub(crate) fn new() -> Self {
        Self {
            list: [IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED); MAX_ADDRESSES],
            len: 0,
        }
    }

    pub(crate) fn one(address: IpAddr) -> Self {
        let mut addresses = Self::new();
        addresses.push(address);
        addresses
    }

    pub(crate) fn push(&mut self, address: IpAddr) {
        if let Some(free) = self.list.get_mut(self.len) {
            *free = address;
            self.len += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len == self.list.len()
    }

    pub(crate) fn as_slice(&self) -> &[IpAddr] {
        self.list.get(..self.len).unwrap_or_default()
    }
}

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

/// Whether a name may be asked about at all: names are data, and a query carries them out.
#[must_use]
#[derive(Clone, Debug)]
pub enum NameDecision {
    /// Some flow to this name could be allowed.
    Allow(NamePermit),
    /// None could.
    Deny(Denial),
}

/// The permission to ask for one name. There is no other way to one than
/// [`crate::Policy::decide_name`].
#[derive(Clone, Debug)]
pub struct NamePermit {
    name: Name,
    rule: Option<RuleRef>,
    report: Option<Denial>,
}

impl NamePermit {
    pub(crate) fn new(name: Name, rule: Option<RuleRef>, report: Option<Denial>) -> Self {
        Self { name, rule, report }
    }

    /// The name that may be asked for.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The rule that allows it; `None` when only `mode: report` let it pass.
    #[must_use]
    pub fn rule(&self) -> Option<&RuleRef> {
        self.rule.as_ref()
    }

    /// What would have been said under `mode: enforce`, when that is a denial.
    #[must_use]
    pub fn report(&self) -> Option<&Denial> {
        self.report.as_ref()
    }
}
