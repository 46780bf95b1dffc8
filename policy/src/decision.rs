//! Flows and decisions about them.

use std::net::IpAddr;

use odyn_proto::DnsName;

use crate::denial::Denial;
use crate::permit::{NamePermit, Permit};
use crate::ports::Protocol;

/// The destination of a flow.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// An address that the app connected to.
    Address(IpAddr),
    /// A name, and the addresses it resolves to.
    Name {
        /// The name that the app connected to.
        name: &'a DnsName,
        /// The addresses of the name at present, in the order in which they should be tried.
        resolved: &'a [IpAddr],
    },
    /// The host's loopback.
    Host,
}

/// A flow that an app asks for.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// The destination.
    pub destination: Destination<'a>,
    /// Destination port.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// The decision about a flow.
#[must_use]
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once per flow on the stack: a box would be the allocation that decide avoids"
)]
pub enum Decision {
    /// The flow may be made, to the target of the permit and nothing else.
    Allow(Permit),
    /// The flow may not be made.
    Deny(Denial),
}

impl Decision {
    /// Whether the flow may be made.
    #[must_use]
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// The decision whether a name may be looked up. A query would carry the name out of the guest.
#[must_use]
#[derive(Clone, Debug)]
pub enum NameDecision {
    /// The rules allow some flow to this name.
    Allow(NamePermit),
    /// They allow none.
    Deny(Denial),
}
