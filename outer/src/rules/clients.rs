//! The operator's limits for clients, and the addresses of load balancers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

/// The limits for clients. A client is held to the limits at the time that it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientRules {
    /// Most clients at once of one listener.
    pub most: Option<usize>,
    /// Most clients at once from one address, or from one /64 of IPv6.
    pub most_per_source: Option<usize>,
    /// Most new clients of one listener in one second.
    pub rate: Option<NonZeroU32>,
    /// Longest wait for a client's first byte. Zero: no limit.
    pub first_byte: Duration,
    /// Longest silence in both directions. Zero: no limit.
    pub idle: Duration,
    /// Load balancers: their connections begin with a header of the PROXY protocol.
    pub proxies: Vec<ProxyFrom>,
}

impl Default for ClientRules {
    fn default() -> Self {
        Self {
            most: None,
            most_per_source: None,
            rate: None,
            first_byte: Duration::from_secs(60),
            idle: Duration::ZERO,
            proxies: Vec::new(),
        }
    }
}

impl ClientRules {
    /// Whether a connection from `source` to a listener at `local` has to begin with a header.
    pub(crate) fn is_proxy(&self, local: SocketAddr, source: IpAddr) -> bool {
        self.proxies.iter().any(|proxy| {
            let is_here = proxy.port.is_none_or(|port| port.get() == local.port());
            is_here && proxy.net.contains(&source)
        })
    }
}

/// Addresses of load balancers: `[PORT=]CIDR`, with the port of a listener of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyFrom {
    /// The port of the listener that this holds for; for all when absent.
    pub port: Option<NonZeroU16>,
    /// The addresses.
    pub net: IpNet,
}

/// A text that is not a [`ProxyFrom`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyFromError {
    /// The text before `=` is no port.
    #[error("{0:?} is not a port (1 to 65535) of a listener")]
    Port(String),
    /// The text is no network.
    #[error("{0:?} is no address or network: expected [PORT=]CIDR, such as 10.0.0.0/8")]
    Net(String),
    /// A network with host bits set.
    #[error("{0} has bits behind its prefix: did you mean {1}?")]
    Bits(IpNet, IpNet),
}

impl FromStr for ProxyFrom {
    type Err = ProxyFromError;

    fn from_str(text: &str) -> Result<Self, ProxyFromError> {
        let (port, net) = match text.split_once('=') {
            Some((port, net)) => {
                let wrong = || ProxyFromError::Port(port.to_owned());
                (Some(port.parse().map_err(|_| wrong())?), net)
            }
            None => (None, text),
        };
        let net = match (net.parse::<IpAddr>(), net.parse::<IpNet>()) {
            (Ok(address), _) => address.into(),
            (_, Ok(net)) if net.trunc() == net => net,
            (_, Ok(net)) => return Err(ProxyFromError::Bits(net, net.trunc())),
            _ => return Err(ProxyFromError::Net(net.to_owned())),
        };
        Ok(Self { port, net })
    }
}

impl fmt::Display for ProxyFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{port}={}", self.net),
            None => self.net.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_balancers_are_of_a_listener_or_of_all() {
        let rules = ClientRules {
            proxies: ["10.0.0.0/8", "443=192.0.2.7", "80=2001:db8::/32"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            ..ClientRules::default()
        };
        let is_proxy = |port: u16, source: &str| {
            rules.is_proxy(
                SocketAddr::from(([0, 0, 0, 0], port)),
                source.parse().unwrap(),
            )
        };
        assert!(is_proxy(80, "10.1.2.3") && is_proxy(443, "10.1.2.3"));
        assert!(is_proxy(443, "192.0.2.7") && !is_proxy(80, "192.0.2.7"));
        assert!(is_proxy(80, "2001:db8::1") && !is_proxy(80, "2001:db9::1"));
        assert_eq!(rules.proxies[1].to_string(), "443=192.0.2.7/32");
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, part) in [
            ("", "is no address or network"),
            ("0=10.0.0.0/8", "\"0\" is not a port"),
            ("x=10.0.0.0/8", "\"x\" is not a port"),
            ("10.1.0.0/8", "did you mean 10.0.0.0/8?"),
            ("lb.example", "\"lb.example\" is no address"),
        ] {
            let error = text.parse::<ProxyFrom>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
