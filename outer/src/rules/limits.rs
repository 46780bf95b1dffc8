//! The operator's limits on the addresses that guests may reach.

use std::net::IpAddr;

use ipnet::IpNet;

/// The operator's limits on addresses. Without any, every address may be dialled.
///
/// They apply to every address that is dialled, the host's loopback included. They narrow what the
/// guests' policies allow and cannot widen it.
#[derive(Debug, Default, Clone)]
pub struct AddressLimits {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

impl AddressLimits {
    /// Allows these networks, and closes all others.
    pub fn allow(mut self, nets: impl IntoIterator<Item = IpNet>) -> Self {
        self.allow.extend(nets);
        self
    }

    /// Denies these networks, also where another limit allows them.
    pub fn deny(mut self, nets: impl IntoIterator<Item = IpNet>) -> Self {
        self.deny.extend(nets);
        self
    }

    /// Whether `address` may be dialled. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn permit(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let in_any = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        !in_any(&self.deny) && (self.allow.is_empty() || in_any(&self.allow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn permits(limits: &AddressLimits, address: &str) -> bool {
        limits.permit(address.parse().unwrap())
    }

    #[test]
    fn without_rules_everything_passes() {
        let limits = AddressLimits::default();
        assert!(permits(&limits, "192.0.2.1") && permits(&limits, "::1"));
    }

    #[test]
    fn deny_beats_allow_and_allow_closes_the_rest() {
        let limits = AddressLimits::default()
            .allow(nets(&["10.0.0.0/8", "2001:db8::/32"]))
            .deny(nets(&["10.1.0.0/16"]));
        assert!(permits(&limits, "10.0.0.1"));
        assert!(!permits(&limits, "10.1.0.1"));
        assert!(permits(&limits, "2001:db8::1"));
        assert!(!permits(&limits, "192.0.2.1"));
        assert!(!permits(&limits, "::1"));
    }

    #[test]
    fn a_mapped_address_is_no_way_round() {
        let limits = AddressLimits::default().deny(nets(&["169.254.0.0/16"]));
        assert!(!permits(&limits, "::ffff:169.254.169.254"));
        assert!(permits(&limits, "::ffff:192.0.2.1"));
    }
}
