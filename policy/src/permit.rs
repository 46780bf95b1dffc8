//! Permissions as values.
//!
//! Only the policy can make them, and the guest opens flows on the link with nothing else.

use std::fmt;
use std::net::IpAddr;

use odyn_proto::DnsName;

use crate::condition::Condition;
use crate::denial::Denial;
use crate::ports::Protocol;
use crate::rule::RuleRef;

/// Most addresses of a permit; further ones are dropped.
pub const MAX_ADDRESSES: usize = 16;

/// The permission to make one flow. Only [`crate::Policy::decide`] gives one.
#[derive(Clone)]
pub struct Permit {
    target: OpenedTarget,
    port: u16,
    protocol: Protocol,
    rule: Option<RuleRef>,
    report: Option<Denial>,
}

#[derive(Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would be an allocation for each flow"
)]
enum OpenedTarget {
    Host,
    Addresses(Addresses),
}

/// The target of a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitTarget<'a> {
    /// Addresses, at least one, in the order in which they should be tried.
    Addresses(&'a [IpAddr]),
    /// The host's loopback.
    Host,
}

impl Permit {
    pub(crate) fn host(port: u16, protocol: Protocol) -> Self {
        Self::new(OpenedTarget::Host, port, protocol)
    }

    pub(crate) fn addresses(addresses: Addresses, port: u16, protocol: Protocol) -> Self {
        Self::new(OpenedTarget::Addresses(addresses), port, protocol)
    }

    fn new(target: OpenedTarget, port: u16, protocol: Protocol) -> Self {
        Self {
            target,
            port,
            protocol,
            rule: None,
            report: None,
        }
    }

    pub(crate) fn with_rule(mut self, rule: RuleRef) -> Self {
        self.rule = Some(rule);
        self
    }

    pub(crate) fn with_report(mut self, denial: Option<Denial>) -> Self {
        self.report = denial;
        self
    }

    /// The target that may be dialled.
    #[must_use]
    pub fn target(&self) -> PermitTarget<'_> {
        match &self.target {
            OpenedTarget::Host => PermitTarget::Host,
            OpenedTarget::Addresses(addresses) => PermitTarget::Addresses(addresses.as_slice()),
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

    /// The denial that `mode: enforce` would have given.
    #[must_use]
    pub fn report(&self) -> Option<&Denial> {
        self.report.as_ref()
    }

    /// The conditions that the flow's bytes must meet, as the rule that allows it states them.
    ///
    /// Empty when only `mode: report` lets the flow pass.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        self.rule.as_ref().map_or(&[], RuleRef::conditions)
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
            .field("conditions", &self.conditions())
            .finish()
    }
}

/// A short list of addresses on the stack.
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
        debug_assert!(self.len <= self.list.len());
        self.list.get(..self.len).unwrap_or_default()
    }
}

/// The permission to look up one name. Only [`crate::Policy::decide_name`] gives one.
#[derive(Clone, Debug)]
pub struct NamePermit {
    name: DnsName,
    rule: Option<RuleRef>,
    report: Option<Denial>,
}

impl NamePermit {
    pub(crate) fn new(name: DnsName, rule: Option<RuleRef>, report: Option<Denial>) -> Self {
        Self { name, rule, report }
    }

    /// The name that may be looked up.
    #[must_use]
    pub fn name(&self) -> &DnsName {
        &self.name
    }

    /// The rule that allows it; `None` when only `mode: report` let it pass.
    #[must_use]
    pub fn rule(&self) -> Option<&RuleRef> {
        self.rule.as_ref()
    }

    /// The denial that `mode: enforce` would have given.
    #[must_use]
    pub fn report(&self) -> Option<&Denial> {
        self.report.as_ref()
    }
}
