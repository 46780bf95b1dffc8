//! Decides on a flow: from its captured destination to a permit.

use std::net::IpAddr;
use std::sync::Arc;

use odyn_dns::{Family, Lease, ResolveError};
use odyn_policy::{
    Decision, Destination, Flow, MAX_ADDRESSES, Permit, Policy, Protocol, Reason, RuleRef,
};
use odyn_proto::{DnsName, OrigDst};

use crate::audit::{End, Record, Refusal};
use crate::capture::routes::OwnAddresses;
use crate::egress::dns_policy::Resolver;

/// Decides on flows, by the policy and by the names behind synthetic addresses.
pub(super) struct Authorizer {
    policy: Arc<Policy>,
    resolver: Resolver,
    own: OwnAddresses,
}

/// An allowed flow.
pub(super) struct Admitted {
    /// The permit, which opens the flow on the link.
    pub permit: Permit,
    /// The name that the app connected to.
    pub name: Option<DnsName>,
    /// Keeps the synthetic address bound to its name while the flow lives.
    pub _lease: Option<Lease>,
}

/// A flow that is not carried.
pub(super) enum Rejected {
    /// The policy denies the flow; the refusal is for its record.
    Denied(Refusal),
    /// The policy may allow the name, but the name does not resolve at the moment.
    Unresolved,
}

enum FlowTarget {
    Name(DnsName, Lease),
    Address(IpAddr),
}

impl Authorizer {
    /// Makes an authorizer. Flows to `own`, the guest's own addresses, are denied.
    pub(super) fn new(policy: Arc<Policy>, resolver: Resolver, own: OwnAddresses) -> Self {
        Self {
            policy,
            resolver,
            own,
        }
    }

    /// Decides on a flow and notes name and verdict in its record.
    ///
    /// # Errors
    /// The flow is denied, or its name does not resolve.
    pub(super) async fn authorize(
        &self,
        destination: OrigDst,
        protocol: Protocol,
        record: &mut Record,
    ) -> Result<Admitted, Rejected> {
        let port = destination.port();
        let decided = match self.identify(destination.ip()).map_err(Rejected::Denied)? {
            FlowTarget::Address(address) => Ok((
                self.policy.decide(&Flow {
                    destination: Destination::Address(address),
                    port,
                    protocol,
                }),
                None,
                None,
            )),
            FlowTarget::Name(name, lease) => {
                record.name(name.as_str().into());
                let family = lease.binding().family;
                self.decide_name(&name, family, port, protocol)
                    .await
                    .map(|decision| (decision, Some(name), Some(lease)))
            }
        };
        let (decision, name, lease) = decided?;
        match decision {
            Decision::Allow(permit) => {
                record.allowed(
                    permit.rule().map(rule_of),
                    permit.report().map(Refusal::from),
                );
                Ok(Admitted {
                    permit,
                    name,
                    _lease: lease,
                })
            }
            Decision::Deny(denial) => Err(Rejected::Denied(Refusal::from(&denial))),
        }
    }

    async fn decide_name(
        &self,
        name: &DnsName,
        family: Family,
        port: u16,
        protocol: Protocol,
    ) -> Result<Decision, Rejected> {
        if name.is_host_alias() {
            return Ok(self.policy.decide(&Flow {
                destination: Destination::Host,
                port,
                protocol,
            }));
        }
        let resolved = self
            .resolve(name, family)
            .await
            .map_err(|error| match error {
                ResolveError::Denied(denial) => Rejected::Denied(Refusal::from(&denial)),
                error => {
                    tracing::info!(%name, %error, "the name behind a synthetic address does not resolve");
                    Rejected::Unresolved
                }
            })?;
        Ok(self.policy.decide(&Flow {
            destination: Destination::Name {
                name,
                resolved: &resolved,
            },
            port,
            protocol,
        }))
    }

    /// Resolves the name in both families, the flow's own first. The app chose a family with the
    /// synthetic address, but only the host knows which one it can reach.
    async fn resolve(&self, name: &DnsName, family: Family) -> Result<Vec<IpAddr>, ResolveError> {
        let other = match family {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        let (own, other) = tokio::join!(
            self.resolver.addresses(name, family),
            self.resolver.addresses(name, other),
        );
        match (own, other) {
            (Ok(mut own), Ok(other)) => {
                own.truncate(MAX_ADDRESSES / 2);
                own.extend(other);
                Ok(own)
            }
            (Ok(addresses), Err(_)) | (Err(_), Ok(addresses)) => Ok(addresses),
            (Err(error), Err(_)) => Err(error),
        }
    }

    fn identify(&self, address: IpAddr) -> Result<FlowTarget, Refusal> {
        let address = address.to_canonical();
        if let Some(lease) = self.resolver.hold(address) {
            return Ok(FlowTarget::Name(lease.binding().name.clone(), lease));
        }
        // The app addressed a listener of odyn-net directly, not through the capture.
        if address == IpAddr::V4(self.own.v4) || self.own.v6.is_some_and(|v6| address == v6) {
            return Err(Refusal::of("own-address"));
        }
        if odyn_proto::synthetic::contains(address) {
            return Err(Refusal::of(Reason::UnknownSynthetic.as_str()));
        }
        Ok(FlowTarget::Address(address))
    }
}

/// A rule as in the audit record: its text and its line.
pub(super) fn rule_of(rule: &RuleRef) -> (Arc<str>, u32) {
    (rule.shared_text(), rule.line())
}

/// The end, for the audit record, of a flow that the host did not open.
pub(super) fn end_of_open(error: &odyn_link::OpenError) -> End {
    use odyn_link::OpenError;
    use odyn_proto::Refusal;
    match error {
        OpenError::Refused(refusal) => match refusal {
            Refusal::ConnectionRefused => End::Refused,
            Refusal::ConnectionTimeout | Refusal::DnsTimeout => End::Timeout,
            Refusal::Unroutable => End::Unreachable,
            Refusal::Prohibited | Refusal::LimitReached => End::HostRefused,
            Refusal::DnsError | Refusal::BadRequest | Refusal::Internal => End::LinkFault,
        },
        OpenError::Reset => End::ResetByPeer,
        OpenError::Timeout(_) => End::Timeout,
        OpenError::LinkDown(_) | OpenError::LinkLost => End::LinkLost,
        OpenError::Closing => End::Cut,
        _ => End::LinkFault,
    }
}
