//! Addresses that no ordinary rule opens.
//!
//! The owner of `allowed.example` can make it resolve to 127.0.0.1 or to the instance metadata
//! service. So only a CIDR rule inside one of the blocks below opens the block. `0.0.0.0/0`, which
//! people write for "the internet", opens none of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use odyn_proto::synthetic;

/// The IPv4 block of synthetic addresses: never dialled.
pub(crate) const SYNTHETIC_V4: Ipv4Net =
    Ipv4Net::new_assert(synthetic::BLOCK_V4, synthetic::PREFIX_V4);

/// The IPv6 block of synthetic addresses: never dialled.
pub(crate) const SYNTHETIC_V6: Ipv6Net =
    Ipv6Net::new_assert(synthetic::BLOCK_V6, synthetic::PREFIX_V6);

/// A kind of special addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    /// 127.0.0.0/8, ::1.
    Loopback,
    /// 169.254.0.0/16 (with the metadata service), fe80::/10.
    LinkLocal,
    /// fd00:ec2::/32, the services of an EC2 instance over IPv6.
    InstanceServices,
    /// 224.0.0.0/4, ff00::/8.
    Multicast,
    /// 0.0.0.0/8, ::.
    Unspecified,
    /// 255.255.255.255.
    Broadcast,
    /// 240.0.0.0/4.
    Reserved,
    /// Synthetic addresses of the guest's resolver.
    Synthetic,
}

impl Special {
    /// A short description.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::InstanceServices => "EC2 instance services",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified (this network)",
            Self::Broadcast => "broadcast",
            Self::Reserved => "reserved",
            Self::Synthetic => "synthetic (given to names by the guest's resolver)",
        }
    }
}

/// A special block, with its prefix length.
///
/// A rule opens an address of the block only if its own prefix is at least as long, which means
/// that the rule lies inside the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) kind: Special,
    pub(crate) prefix_len: u8,
}

const fn block(kind: Special, prefix_len: u8) -> Option<Block> {
    Some(Block { kind, prefix_len })
}

/// The smallest special block around an address in its canonical form.
pub(crate) fn block_of(address: IpAddr) -> Option<Block> {
    match address {
        IpAddr::V4(v4) => block_of_v4(v4),
        IpAddr::V6(v6) => block_of_v6(v6),
    }
}

fn block_of_v4(address: Ipv4Addr) -> Option<Block> {
    if SYNTHETIC_V4.contains(&address) {
        return block(Special::Synthetic, SYNTHETIC_V4.prefix_len());
    }
    match address.octets() {
        [0, ..] => block(Special::Unspecified, 8),
        [127, ..] => block(Special::Loopback, 8),
        [169, 254, ..] => block(Special::LinkLocal, 16),
        [224..=239, ..] => block(Special::Multicast, 4),
        [255, 255, 255, 255] => block(Special::Broadcast, 32),
        [240..=255, ..] => block(Special::Reserved, 4),
        _ => None,
    }
}

fn block_of_v6(address: Ipv6Addr) -> Option<Block> {
    if address.is_loopback() {
        return block(Special::Loopback, 128);
    }
    if address.is_unspecified() {
        return block(Special::Unspecified, 128);
    }
    if SYNTHETIC_V6.contains(&address) {
        return block(Special::Synthetic, SYNTHETIC_V6.prefix_len());
    }
    match address.segments() {
        [0xfe80..=0xfebf, ..] => block(Special::LinkLocal, 10),
        [0xff00..=0xffff, ..] => block(Special::Multicast, 8),
        [0xfd00, 0x0ec2, ..] => block(Special::InstanceServices, 32),
        _ => None,
    }
}

/// The kind of a special address, if it is one. An IPv4-mapped address counts as IPv4.
#[must_use]
pub fn special(address: IpAddr) -> Option<Special> {
    block_of(canonical(address)).map(|b| b.kind)
}

/// The canonical form of an address: IPv4-mapped IPv6 (`::ffff:a.b.c.d`) becomes IPv4.
///
/// The kernel also connects to the IPv4 address.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The IPv4 address inside an IPv6 address that a translator or relay would connect to.
///
/// These are NAT64 (RFC 6052), 6to4 (RFC 3056) and IPv4-compatible (RFC 4291 2.5.5.1) addresses.
pub(crate) fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match v6.segments() {
        // :: and ::1 contain no IPv4 address.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] => {
            Some(join(high, low))
        }
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Special> {
        special(text.parse().unwrap())
    }

    #[test]
    fn edges_of_every_block() {
        use Special::*;
        for (address, wanted) in [
            ("0.0.0.0", Some(Unspecified)),
            ("0.255.255.255", Some(Unspecified)),
            ("1.0.0.0", None),
            ("126.255.255.255", None),
            ("127.0.0.0", Some(Loopback)),
            ("127.255.255.255", Some(Loopback)),
            ("128.0.0.0", None),
            ("169.253.255.255", None),
            ("169.254.169.254", Some(LinkLocal)),
            ("169.255.0.0", None),
            ("198.17.255.255", None),
            ("198.18.0.0", Some(Synthetic)),
            ("198.19.255.255", Some(Synthetic)),
            ("198.20.0.0", None),
            ("223.255.255.255", None),
            ("224.0.0.0", Some(Multicast)),
            ("239.255.255.255", Some(Multicast)),
            ("240.0.0.0", Some(Reserved)),
            ("255.255.255.254", Some(Reserved)),
            ("255.255.255.255", Some(Broadcast)),
            ("192.0.2.1", None),
            ("::", Some(Unspecified)),
            ("::1", Some(Loopback)),
            ("::2", None),
            ("fe7f::1", None),
            ("fe80::1", Some(LinkLocal)),
            ("febf::1", Some(LinkLocal)),
            ("fec0::1", None),
            ("feff::1", None),
            ("ff02::1", Some(Multicast)),
            ("fd00:ec2::254", Some(InstanceServices)),
            ("fd00:ec3::254", None),
            ("fd6f:6479:6e00::1", Some(Synthetic)),
            ("fd6f:6479:6e00:1::1", None),
            ("2001:db8::1", None),
            ("::ffff:127.0.0.1", Some(Loopback)),
            ("::ffff:10.0.0.1", None),
        ] {
            assert_eq!(of(address), wanted, "{address}");
        }
    }

    #[test]
    fn embedded_addresses() {
        for (address, wanted) in [
            ("64:ff9b::7f00:1", Some("127.0.0.1")),
            ("64:ff9b:0:0:0:1:7f00:1", None),
            ("2002:a9fe:a9fe::1", Some("169.254.169.254")),
            ("::10.0.0.1", Some("10.0.0.1")),
            ("::1", None),
            ("::", None),
            ("2001:db8::1", None),
            ("10.0.0.1", None),
        ] {
            let found = embedded_v4(address.parse().unwrap()).map(|a| a.to_string());
            assert_eq!(found.as_deref(), wanted, "{address}");
        }
    }
}
