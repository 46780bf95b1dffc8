//! Special-use names (RFC 6761), which are about this machine.
//!
//! The resolver answers them itself, whatever the policy says.
//!
//! - `localhost` and everything below it: loopback addresses (RFC 6761 section 6.3).
//! - Reverse names of synthetic addresses: the name that owns the address.
//! - Reverse names of loopback: `localhost`.
//! - The private and special reverse zones of RFC 6303: they do not exist, unless the policy
//!   allows the name, which is then looked up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};
use odyn_proto::DnsName;

/// The address that a reverse name stands for.
pub(crate) fn reversed(name: &DnsName) -> Option<IpAddr> {
    let name = name.as_str();
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0_u8; 4];
        let mut labels = labels.rsplit('.');
        for octet in &mut octets {
            *octet = decimal(labels.next()?)?;
        }
        return labels
            .next()
            .is_none()
            .then(|| Ipv4Addr::from(octets).into());
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut bits = 0_u128;
    let mut count = 0;
    for label in labels.rsplit('.') {
        let mut digits = label.chars();
        let (Some(digit), None) = (digits.next(), digits.next()) else {
            return None;
        };
        bits = bits << 4 | u128::from(digit.to_digit(16)?);
        count += 1;
        if count > 32 {
            return None;
        }
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
}

/// Reads a number of a reverse name: no sign, no leading zero.
fn decimal(label: &str) -> Option<u8> {
    let plain = label == "0" || !label.starts_with(['0', '+']);
    plain.then(|| label.parse().ok()).flatten()
}

/// The zones of RFC 6303 section 4. [`local_zone`] has those that are ranges of labels.
const LOCAL_ZONES: [&str; 21] = [
    "10.in-addr.arpa",
    "168.192.in-addr.arpa",
    "0.in-addr.arpa",
    "127.in-addr.arpa",
    "254.169.in-addr.arpa",
    "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa",
    "113.0.203.in-addr.arpa",
    "255.255.255.255.in-addr.arpa",
    "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    "c.f.ip6.arpa",
    "d.f.ip6.arpa",
    "8.e.f.ip6.arpa",
    "9.e.f.ip6.arpa",
    "a.e.f.ip6.arpa",
    "b.e.f.ip6.arpa",
    "8.b.d.0.1.0.0.2.ip6.arpa",
    // The synthetic blocks, for names without a binding.
    "18.198.in-addr.arpa",
    "19.198.in-addr.arpa",
    "0.0.e.6.9.7.4.6.f.6.d.f.ip6.arpa",
];

/// The local zone that `name` lies in.
pub(crate) fn local_zone(name: &DnsName) -> Option<&str> {
    if !name.as_str().ends_with(".arpa") {
        return None;
    }
    if let Some(zone) = (LOCAL_ZONES.into_iter()).find(|zone| name.is_within(zone)) {
        return Some(zone);
    }
    let name = name.as_str();
    // 16.172 to 31.172 (RFC 1918) and 64.100 to 127.100 (RFC 6598).
    [
        ("172.in-addr.arpa", 16..=31),
        ("100.in-addr.arpa", 64..=127),
    ]
    .into_iter()
    .find_map(|(zone, range)| {
        let below = name.strip_suffix(zone)?.strip_suffix('.')?;
        let label = below.rsplit('.').next()?;
        let start = below.len() - label.len();
        range
            .contains(&decimal(label)?)
            .then(|| name.get(start..))?
    })
}

/// The SOA of a local zone, as RFC 6303 section 3 gives it.
pub(crate) fn local_soa(zone: &str, ttl: u32) -> Option<Record> {
    let zone = Name::from_ascii(format!("{zone}.")).ok()?;
    let person = Name::from_ascii("nobody.invalid.").ok()?;
    let soa = SOA::new(zone.clone(), person, 1, 3600, 1200, 604_800, ttl);
    Some(Record::from_rdata(zone, ttl, RData::SOA(soa)))
}

/// The name `localhost.` of a message.
pub(crate) fn localhost() -> Option<Name> {
    Name::from_ascii("localhost.").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DnsName {
        DnsName::parse(text).expect("a test's name")
    }

    #[test]
    fn reverse_names_are_read_whole_or_not_at_all() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().expect("test address"));
        assert_eq!(reversed(&name("5.1.18.198.in-addr.arpa")), ip("198.18.1.5"));
        let nibbles = "5.0.0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.e.6.9.7.4.6.f.6.d.f.ip6.arpa";
        assert_eq!(reversed(&name(nibbles)), ip("fd6f:6479:6e00::1:5"));
        for bad in [
            "1.18.198.in-addr.arpa",
            "0.5.1.18.198.in-addr.arpa",
            "05.1.18.198.in-addr.arpa",
            "256.1.18.198.in-addr.arpa",
            "in-addr.arpa",
            "xin-addr.arpa",
            &nibbles[2..],
            &format!("0.{nibbles}"),
            "example.com",
        ] {
            assert_eq!(reversed(&name(bad)), None, "{bad}");
        }
    }

    #[test]
    fn local_zones() {
        for (text, expected) in [
            ("1.2.3.10.in-addr.arpa", Some("10.in-addr.arpa")),
            ("10.in-addr.arpa", Some("10.in-addr.arpa")),
            ("1.1.16.172.in-addr.arpa", Some("16.172.in-addr.arpa")),
            ("31.172.in-addr.arpa", Some("31.172.in-addr.arpa")),
            ("1.1.32.172.in-addr.arpa", None),
            ("1.1.64.100.in-addr.arpa", Some("64.100.in-addr.arpa")),
            ("1.1.63.100.in-addr.arpa", None),
            ("1.2.3.110.in-addr.arpa", None),
            ("8.8.8.8.in-addr.arpa", None),
            ("10.in-addr.arpa.example", None),
            ("172.in-addr.arpa", None),
        ] {
            assert_eq!(local_zone(&name(text)), expected, "{text}");
        }
        let soa = local_soa("10.in-addr.arpa", 30).expect("valid");
        assert_eq!(soa.name.to_ascii(), "10.in-addr.arpa.");
    }
}
