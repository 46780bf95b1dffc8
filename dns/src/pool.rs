//! The synthetic addresses of a slot.
//!
//! A *slot* is a small number that stands for one name. Both of the name's addresses, one in each
//! block of [`odyn_proto::synthetic`], are computed from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use odyn_proto::synthetic::{BLOCK_V4, BLOCK_V6, PREFIX_V4};

/// Lowest addresses of the IPv4 block that are never given to a name.
const RESERVED_V4: u32 = 1 << 8;
/// Lowest addresses of the IPv6 block that are never given to a name.
const RESERVED_V6: u128 = 1 << 16;

/// Most names that the blocks can hold.
///
/// The last IPv4 address is not used: stacks with the /15 on an interface take it for the broadcast
/// address.
pub const MAX_NAMES: usize = ((1 << (32 - PREFIX_V4)) - RESERVED_V4 - 1) as usize;

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

/// The address of `slot` in `family`; `slot` is below [`MAX_NAMES`].
pub(crate) fn address(slot: u32, family: Family) -> IpAddr {
    match family {
        Family::V4 => v4(slot).into(),
        Family::V6 => v6(slot).into(),
    }
}

pub(crate) fn v4(slot: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(
        BLOCK_V4
            .to_bits()
            .wrapping_add(RESERVED_V4)
            .wrapping_add(slot),
    )
}

pub(crate) fn v6(slot: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(BLOCK_V6.to_bits() + RESERVED_V6 + u128::from(slot))
}

/// The slot that `address` belongs to, if it is one that may be bound to a name.
pub(crate) fn slot(address: IpAddr) -> Option<u32> {
    let slot = match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(BLOCK_V4.to_bits() + RESERVED_V4)?,
        IpAddr::V6(v6) => {
            let offset = v6.to_bits().checked_sub(BLOCK_V6.to_bits() + RESERVED_V6)?;
            u32::try_from(offset).ok()?
        }
    };
    ((slot as usize) < MAX_NAMES).then_some(slot)
}

#[cfg(test)]
mod tests {
    use odyn_proto::synthetic;

    use super::*;

    #[test]
    fn slots_and_addresses_are_inverse() {
        for index in [0, 1, 255, 65_535, MAX_NAMES as u32 - 1] {
            for family in [Family::V4, Family::V6] {
                let address = address(index, family);
                assert!(synthetic::contains(address), "{address}");
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
    }

    #[test]
    fn mapped_addresses_are_the_ipv4_they_carry() {
        let mapped = v4(7).to_ipv6_mapped();
        assert_eq!(slot(mapped.into()), Some(7));
        assert_eq!(Family::of(mapped.into()), Family::V4);
    }
}
