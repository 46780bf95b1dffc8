//! Destinations that the guest asks the host to reach.

use std::fmt;
use std::net::IpAddr;

use crate::HOST_ALIAS;

/// A destination that the guest asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The host part.
    pub host: TargetHost,
    /// The port, not 0.
    pub port: u16,
}

/// The host part of a [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetHost {
    /// Addresses in order of preference, at least one. The guest's policy has checked each.
    Addresses(Vec<IpAddr>),
    /// The loopback interface of the host (`host` in a policy).
    HostLoopback,
}

impl Target {
    /// A target at one address.
    pub fn address(address: impl Into<IpAddr>, port: u16) -> Self {
        Self {
            host: TargetHost::Addresses(vec![address.into()]),
            port,
        }
    }

    /// A port on the host's loopback interface.
    pub fn host_loopback(port: u16) -> Self {
        Self {
            host: TargetHost::HostLoopback,
            port,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            TargetHost::HostLoopback => write!(f, "{HOST_ALIAS}:{}", self.port),
            TargetHost::Addresses(list) => match list.as_slice() {
                [] => write!(f, "nowhere:{}", self.port),
                [IpAddr::V6(one), rest @ ..] => {
                    write!(f, "[{one}]:{}", self.port)?;
                    more(f, rest.len())
                }
                [IpAddr::V4(one), rest @ ..] => {
                    write!(f, "{one}:{}", self.port)?;
                    more(f, rest.len())
                }
            },
        }
    }
}

fn more(f: &mut fmt::Formatter<'_>, count: usize) -> fmt::Result {
    if count == 0 {
        Ok(())
    } else {
        write!(f, " (+{count})")
    }
}
