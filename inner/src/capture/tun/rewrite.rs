//! Replaces the addresses and ports of a TCP packet and updates its checksums.

use std::net::{IpAddr, SocketAddr};

use super::packet::{Ip, TCP};
use crate::capture::checksum::{Sum, updated, updated_partial};

/// The place of the addresses in a header.
fn addresses(ip: &Ip) -> std::ops::Range<usize> {
    match ip.source {
        IpAddr::V4(_) => 12..20,
        IpAddr::V6(_) => 8..40,
    }
}

/// Writes both addresses. `None` when they are of another family than the packet.
fn octets(from: IpAddr, to: IpAddr, into: &mut [u8; 32]) -> Option<usize> {
    let length = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            into.get_mut(..4)?.copy_from_slice(&from.octets());
            into.get_mut(4..8)?.copy_from_slice(&to.octets());
            8
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            into.get_mut(..16)?.copy_from_slice(&from.octets());
            into.get_mut(16..)?.copy_from_slice(&to.octets());
            32
        }
        _ => return None,
    };
    Some(length)
}

/// Replaces source and destination of a TCP packet that [`parse`](super::packet::parse) accepted.
///
/// `partial`: the checksum field holds the sum of the pseudo-header only, and a device (here the
/// receiving kernel) completes it. Returns `None` when the ends are of another family; the packet
/// is then unusable.
pub fn rewrite(
    packet: &mut [u8],
    ip: &Ip,
    partial: bool,
    from: SocketAddr,
    to: SocketAddr,
) -> Option<()> {
    let (mut old, mut new) = ([0; 32], [0; 32]);
    let length = octets(from.ip(), to.ip(), &mut new)?;
    let place = addresses(ip);
    if place.len() != length {
        return None;
    }
    let (old, new) = (old.get_mut(..length)?, new.get(..length)?);
    let field = packet.get_mut(place)?;
    old.copy_from_slice(field);
    field.copy_from_slice(new);
    if ip.source.is_ipv4() {
        let field = packet.get_mut(10..12)?;
        let sum = u16::from_be_bytes(field.try_into().ok()?);
        field.copy_from_slice(&updated(sum, old, new).to_be_bytes());
    }

    let tcp = packet.get_mut(ip.header..)?;
    let (ports, rest) = tcp.split_at_mut_checked(4)?;
    let mut new_ports = [0; 4];
    new_ports[..2].copy_from_slice(&from.port().to_be_bytes());
    new_ports[2..].copy_from_slice(&to.port().to_be_bytes());
    let field = rest.get_mut(12..14)?;
    let mut sum = u16::from_be_bytes(field.try_into().ok()?);
    if partial {
        sum = updated_partial(sum, old, new);
    } else {
        sum = updated(updated(sum, old, new), ports, &new_ports);
    }
    field.copy_from_slice(&sum.to_be_bytes());
    ports.copy_from_slice(&new_ports);
    Some(())
}

/// Whether the checksums of a TCP packet are right.
pub fn is_sound(packet: &[u8], ip: &Ip, partial: bool) -> bool {
    let (Some(header), Some(tcp)) = (packet.get(..ip.header), packet.get(ip.header..)) else {
        return false;
    };
    if ip.source.is_ipv4() && Sum::default().bytes(header).checksum() != 0 {
        return false;
    }
    let pseudo = Sum::default().pseudo(ip.source, ip.destination, TCP, tcp.len());
    if partial {
        let field = tcp.get(16..18).unwrap_or_default();
        // Zero has two forms in one's complement.
        Sum::default().bytes(field).folded() % 0xffff == pseudo.folded() % 0xffff
    } else {
        pseudo.bytes(tcp).checksum() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::tcp_packet;
    use super::super::packet::{Parsed, parse};
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn sums_follow_the_ends_in_both_families_and_forms() {
        for (from, to, new_from, new_to) in [
            (
                "198.18.0.1:40000",
                "203.0.113.9:443",
                "198.18.0.77:5",
                "198.18.0.1:65498",
            ),
            (
                "[fd6f:6479:6e00::1]:40000",
                "[2001:db8::9]:443",
                "[fd6f:6479:6e00::2]:5",
                "[fd6f:6479:6e00::1]:65498",
            ),
        ] {
            for partial in [false, true] {
                let mut packet = tcp_packet(at(from), at(to), 7, 9, 0x18, b"odd", partial);
                let Some(Parsed::Tcp(ip, _)) = parse(&packet) else {
                    panic!("not TCP");
                };
                assert!(is_sound(&packet, &ip, partial));
                rewrite(&mut packet, &ip, partial, at(new_from), at(new_to)).unwrap();
                let Some(Parsed::Tcp(ip, tcp)) = parse(&packet) else {
                    panic!("not TCP any more");
                };
                assert_eq!(SocketAddr::new(ip.source, tcp.source), at(new_from));
                assert_eq!(SocketAddr::new(ip.destination, tcp.destination), at(new_to));
                assert!(is_sound(&packet, &ip, partial), "{from} {partial}");
            }
        }
    }

    #[test]
    fn ends_of_another_family_are_refused() {
        let mut packet = tcp_packet(at("10.0.0.1:1"), at("10.0.0.2:2"), 0, 0, 2, b"", false);
        let Some(Parsed::Tcp(ip, _)) = parse(&packet) else {
            panic!("not TCP");
        };
        assert!(rewrite(&mut packet, &ip, false, at("[::1]:1"), at("[::2]:2")).is_none());
        assert!(rewrite(&mut packet, &ip, false, at("10.0.0.1:1"), at("[::2]:2")).is_none());
    }
}
