//! The synthetic address blocks: the one place where they are defined.
//!
//! IPv4 comes out of 198.18.0.0/15, which RFC 2544 sets aside for benchmarks and which no public
//! network routes; IPv6 out of a unique local /64 (RFC 4193). A *slot* is a small number that
//! stands for one name; both of the name's addresses are computed from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// First address of the IPv4 block.
pub const SYNTHETIC_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// Prefix length of the IPv4 block.
pub const SYNTHETIC_V4_PREFIX: u8 = 15;
/// The guest's own IPv4 address. 198.18.0.0/24 is never bound to a name.
pub const GUEST_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// First address of the IPv6 block ("odyn" in ASCII after the `fd` of RFC 4193).
pub const SYNTHETIC_V6: Ipv6Addr = Ipv6Addr::new(0xfd6f, 0x6479, 0x6e00, 0, 0, 0, 0, 0);
/// Prefix length of the IPv6 block.
pub const SYNTHETIC_V6_PREFIX: u8 = 64;
/// The guest's own IPv6 address. The lowest 2^16 addresses of the block are never bound.
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd6f, 0x6479, 0x6e00, 0, 0, 0, 0, 1);

const RESERVED_V4: u32 = 1 << 8;
const RESERVED_V6: u128 = 1 << 16;

/// How many names the blocks can hold at once. The very last IPv4 address stays unused because
/// stacks that are given the /15 on an interface take it for the broadcast address.
pub const MAX_NAMES: usize = ((1 << (32 - SYNTHETIC_V4_PREFIX)) - RESERVED_V4 - 1) as usize;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4: A records.
    V4,
    /// IPv6: AAAA records.
    V6,
}

impl Family {
    /// The family of `address`. An IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Whether `address` lies in a synthetic block, the guest's own part included.
#[must_use]
pub fn is_synthetic(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            (v4.to_bits() ^ SYNTHETIC_V4.to_bits()) >> (32 - SYNTHETIC_V4_PREFIX) == 0
        }
        IpAddr::V6(v6) => {
            (v6.to_bits() ^ SYNTHETIC_V6.to_bits()) >> (128 - SYNTHETIC_V6_PREFIX) == 0
        }
    }
}

/// The address of `slot` in `family`; `slot` is below [`MAX_NAMES`].
pub(crate) fn address(slot: u32, family: Family) -> IpAddr {
    match family {
        Family::V4 => v4(slot).into(),
        Family::V6 => v6(slot).into(),
    }
}

pub(crate) fn v4(slot: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(
        SYNTHETIC_V4
            .to_bits()
            .wrapping_add(RESERVED_V4)
            .wrapping_add(slot),
    )
}

pub(crate) fn v6(slot: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(SYNTHETIC_V6.to_bits() + RESERVED_V6 + u128::from(slot))
}

/// The slot that `address` belongs to, if it is one that may be bound to a name.
pub(crate) fn slot(address: IpAddr) -> Option<u32> {
    let slot = match address.to_canonical() {
        IpAddr::V4(v4) => v4
            .to_bits()
            .checked_sub(SYNTHETIC_V4.to_bits() + RESERVED_V4)?,
        IpAddr::V6(v6) => {
            let offset = v6
                .to_bits()
                .checked_sub(SYNTHETIC_V6.to_bits() + RESERVED_V6)?;
            u32::try_from(offset).ok()?
        }
    };
    ((slot as usize) < MAX_NAMES).then_some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_addresses_are_inverse() {
        for index in [0, 1, 255, 65_535, MAX_NAMES as u32 - 1] {
            for family in [Family::V4, Family::V6] {
                let address = address(index, family);
                assert!(is_synthetic(address), "{address}");
                assert_eq!(slot(address), Some(index));
                assert_eq!(Family::of(address), family);
            }
        }
        assert_eq!(v4(0), Ipv4Addr::new(198, 18, 1, 0));
        assert_eq!(v4(MAX_NAMES as u32 - 1), Ipv4Addr::new(198, 19, 255, 254));
    }

    #[test]
    fn reserved_and_outside_addresses_have_no_slot() {
        for text in [
            "198.18.0.1",
            "198.18.0.255",
            "198.17.255.255",
            "198.19.255.255",
            "198.20.0.0",
            "fd6f:6479:6e00::1",
            "fd6f:6479:6e00::ffff",
            "fd6f:6479:6e00:0:1::",
            "fd6f:6479:6e00:1::",
            "::1",
            "127.0.0.1",
        ] {
            let address: IpAddr = text.parse().expect("test address");
            assert_eq!(slot(address), None, "{text}");
        }
        assert!(is_synthetic(GUEST_V4.into()) && is_synthetic(GUEST_V6.into()));
        assert!(!is_synthetic("198.20.0.0".parse().expect("test address")));
    }

    #[test]
    fn mapped_addresses_are_the_ipv4_they_carry() {
        let mapped = v4(7).to_ipv6_mapped();
        assert_eq!(slot(mapped.into()), Some(7));
        assert_eq!(Family::of(mapped.into()), Family::V4);
    }
}
