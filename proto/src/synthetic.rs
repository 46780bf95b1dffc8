//! The blocks of synthetic addresses.
//!
//! The guest's resolver gives each name addresses out of these blocks, and the policy never lets
//! one be dialled. IPv4 comes out of 198.18.0.0/15, which RFC 2544 sets aside for benchmarks and
//! which no public network routes; IPv6 out of a unique local /64 (RFC 4193).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// First address of the IPv4 block.
pub const BLOCK_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// Prefix length of the IPv4 block.
pub const PREFIX_V4: u8 = 15;
/// The guest's own IPv4 address. 198.18.0.0/24 is never given to a name.
pub const GUEST_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// First address of the IPv6 block ("odyn" in ASCII after the `fd` of RFC 4193).
pub const BLOCK_V6: Ipv6Addr = Ipv6Addr::new(0xfd6f, 0x6479, 0x6e00, 0, 0, 0, 0, 0);
/// Prefix length of the IPv6 block.
pub const PREFIX_V6: u8 = 64;
/// The guest's own IPv6 address. The lowest 2^16 addresses of the block are never given to a name.
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd6f, 0x6479, 0x6e00, 0, 0, 0, 0, 1);

/// Whether an address lies in a synthetic block; the guest's own addresses do.
///
/// An IPv4-mapped IPv6 address counts as IPv4.
#[must_use]
pub fn contains(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => (v4.to_bits() ^ BLOCK_V4.to_bits()) >> (32 - PREFIX_V4) == 0,
        IpAddr::V6(v6) => (v6.to_bits() ^ BLOCK_V6.to_bits()) >> (128 - PREFIX_V6) == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_of_the_blocks() {
        for (address, wanted) in [
            ("198.17.255.255", false),
            ("198.18.0.0", true),
            ("198.19.255.255", true),
            ("198.20.0.0", false),
            ("::ffff:198.18.0.1", true),
            ("fd6f:6479:6dff:ffff:ffff:ffff:ffff:ffff", false),
            ("fd6f:6479:6e00::", true),
            ("fd6f:6479:6e00:0:ffff:ffff:ffff:ffff", true),
            ("fd6f:6479:6e00:1::", false),
            ("127.0.0.1", false),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(contains(address), wanted, "{address}");
        }
        assert!(contains(GUEST_V4.into()) && contains(GUEST_V6.into()));
    }
}
