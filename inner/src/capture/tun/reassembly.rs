//! Reassembles IPv6 datagrams that the app's kernel had to fragment.
//!
//! Fragments occur above 65 487 bytes, and where an app asks for them (IPV6_MTU). The kernel sends
//! the fragments of a packet in order and the device loses none, so a fragment out of order is
//! dropped.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::packet::{Fragment, Ip};

/// Incomplete packets, at most. Each has up to 64 KiB.
const PENDING: usize = 16;
/// The largest value of IPv6's length field.
const MAX_PAYLOAD: usize = 65_535;

#[derive(PartialEq, Eq)]
struct Key(IpAddr, IpAddr, u32);

/// The incomplete packets, oldest first.
#[derive(Default)]
pub struct Reassembly {
    pending: VecDeque<(Key, Vec<u8>)>,
}

impl Reassembly {
    /// Adds a fragment. Returns the whole payload when it was the last one.
    pub fn add(&mut self, ip: &Ip, fragment: &Fragment<'_>) -> Option<Vec<u8>> {
        let key = Key(ip.source, ip.destination, fragment.identification);
        let known = self.pending.iter().position(|(known, _)| *known == key);
        let mut data = match known.and_then(|at| self.pending.remove(at)) {
            Some((_, data)) => data,
            None => Vec::new(),
        };
        if data.len() != fragment.offset || data.len() + fragment.data.len() > MAX_PAYLOAD {
            return None;
        }
        data.extend_from_slice(fragment.data);
        if !fragment.more {
            return Some(data);
        }
        if self.pending.len() >= PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back((key, data));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip() -> Ip {
        Ip {
            source: "fd6f::1".parse().unwrap(),
            destination: "2001:db8::9".parse().unwrap(),
            protocol: super::super::packet::FRAGMENT,
            header: 40,
        }
    }

    fn part(identification: u32, offset: usize, more: bool, data: &[u8]) -> Fragment<'_> {
        Fragment {
            offset,
            more,
            identification,
            protocol: 17,
            data,
        }
    }

    #[test]
    fn fragments_in_order_make_a_packet() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.add(&ip(), &part(1, 0, true, b"12345678")), None);
        assert_eq!(reassembly.add(&ip(), &part(2, 0, true, b"abcdefgh")), None);
        let one = reassembly.add(&ip(), &part(1, 8, false, b"9"));
        assert_eq!(one.as_deref(), Some(&b"123456789"[..]));
        assert!(reassembly.add(&ip(), &part(2, 8, false, b"i")).is_some());
        assert!(reassembly.pending.is_empty());
    }

    #[test]
    fn holes_overlaps_and_excess_are_dropped() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.add(&ip(), &part(1, 0, true, b"12345678")), None);
        assert_eq!(reassembly.add(&ip(), &part(1, 16, false, b"x")), None);
        assert_eq!(reassembly.add(&ip(), &part(1, 8, false, b"x")), None);
        assert_eq!(reassembly.add(&ip(), &part(2, 0, true, &[0; 65_528])), None);
        assert_eq!(reassembly.add(&ip(), &part(2, 65_528, true, &[0; 8])), None);
        assert!(reassembly.pending.is_empty());
        for number in 0..100 {
            assert_eq!(reassembly.add(&ip(), &part(number, 0, true, &[0; 8])), None);
        }
        assert_eq!(reassembly.pending.len(), PENDING);
    }
}
