//! Flows, and what the policy says of them.

use std::net::IpAddr;

use odyn_proto::DnsName;

use crate::denial::Denial;
use crate::permit::{NamePermit, Permit};
use crate::ports::Protocol;

/// Where a flow wants to go.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// An address that the program used as such.
    Address(IpAddr),
    /// A name, and the addresses it resolves to.
    Name {
        /// The name that the program asked for.
        name: &'a DnsName,
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

/// Whether a name may be asked about at all: names are data, and a query carries them out.
#[must_use]
#[derive(Clone, Debug)]
pub enum NameDecision {
    /// Some flow to this name could be allowed.
    Allow(NamePermit),
    /// None could.
    Deny(Denial),
}
