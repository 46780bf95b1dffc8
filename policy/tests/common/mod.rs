//! Random policies and flows over a small vocabulary, so that they match often.

#![allow(dead_code, reason = "each test uses its part")]

use std::fmt::Write;
use std::net::IpAddr;

use odyn_policy::Protocol;
use odyn_proto::DnsName;

/// SplitMix64: small, seeded, the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

const LABELS: [&str; 8] = ["a", "b", "ab", "aab", "api-1", "api-2", "com", "example"];
const STARS: [&str; 10] = [
    "*", "*", "**", "a*", "*b", "api-*", "a*b", "*a*", "*-*", "a*a*b",
];

pub(crate) fn name(random: &mut Random) -> DnsName {
    if random.chance(3) {
        let special = ["host", "localhost", "a.localhost", "a.host"];
        return DnsName::parse(random.pick(&special)).unwrap();
    }
    let count = 1 + random.below(5);
    let labels: Vec<&str> = (0..count).map(|_| random.pick(&LABELS)).collect();
    DnsName::parse(&labels.join(".")).unwrap()
}

pub(crate) fn pattern(random: &mut Random) -> String {
    let count = 1 + random.below(4);
    let mut many = false;
    let labels: Vec<&str> = (0..count)
        .map(|i| {
            let star = if i == 0 { 50 } else { 15 };
            if !random.chance(star) {
                return random.pick(&LABELS);
            }
            match random.pick(&STARS) {
                "**" if many => "*",
                label => {
                    many |= label == "**";
                    label
                }
            }
        })
        .collect();
    labels.join(".")
}

const NETS: [&str; 26] = [
    "0.0.0.0/0",
    "10.0.0.0/7",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3",
    "126.0.0.0/7",
    "127.0.0.0/8",
    "127.0.0.1",
    "169.254.0.0/16",
    "169.254.169.254",
    "168.0.0.0/5",
    "224.0.0.0/3",
    "240.0.0.0/4",
    "255.255.255.255",
    "198.18.0.0/15",
    "::/0",
    "::/96",
    "::1",
    "64:ff9b::/96",
    "2002::/16",
    "2002:a01::/32",
    "fe80::/10",
    "fd00::/8",
    "fd00:ec2::/32",
    "fd6f:6479:6e00::/64",
];

const ADDRESSES: [&str; 30] = [
    "10.0.0.1",
    "10.1.0.1",
    "10.1.2.1",
    "10.1.2.3",
    "11.0.0.1",
    "127.0.0.1",
    "127.9.9.9",
    "169.254.169.254",
    "169.254.1.1",
    "224.0.0.1",
    "241.0.0.1",
    "255.255.255.255",
    "0.0.0.0",
    "198.18.0.1",
    "198.51.100.1",
    "::",
    "::1",
    "::ffff:10.1.2.3",
    "::ffff:127.0.0.1",
    "::10.1.2.3",
    "64:ff9b::10.1.2.3",
    "64:ff9b::127.0.0.1",
    "2002:a01:203::1",
    "2002:7f00:1::1",
    "fe80::1",
    "fd00:ec2::254",
    "fd00:1::1",
    "fd6f:6479:6e00::5",
    "2001:db8::1",
    "ff02::1",
];

pub(crate) fn address(random: &mut Random) -> IpAddr {
    random.pick(&ADDRESSES).parse().unwrap()
}

const PORTS: [u16; 9] = [0, 1, 79, 80, 81, 443, 8000, 8443, 65535];

pub(crate) fn port(random: &mut Random) -> u16 {
    PORTS[random.below(PORTS.len())]
}

pub(crate) fn protocol(random: &mut Random) -> Protocol {
    if random.chance(50) {
        Protocol::Tcp
    } else {
        Protocol::Udp
    }
}

/// A policy text with about `rules` rules.
pub(crate) fn policy(random: &mut Random, rules: usize) -> String {
    let mut text = String::from("version: v1\negress:\n");
    if random.chance(25) {
        text.push_str("  mode: report\n");
    }
    for list in ["allow", "deny"] {
        writeln!(text, "  {list}:").unwrap();
        let count = if list == "allow" { rules } else { rules / 2 };
        for _ in 0..count {
            rule(random, list == "allow", &mut text);
        }
    }
    text
}

fn rule(random: &mut Random, allow: bool, text: &mut String) {
    let (to, is_name) = match random.below(10) {
        0 => ("host".to_owned(), false),
        1..=4 => (random.pick(&NETS).to_owned(), false),
        _ => (pattern(random), true),
    };
    if random.chance(40) {
        writeln!(text, "    - \"{to}\"").unwrap();
        return;
    }
    write!(text, "    - {{ to: \"{to}\"").unwrap();
    if random.chance(70) {
        let ranges: Vec<String> = (0..=random.below(2))
            .map(|_| {
                let (a, b) = (port(random), port(random));
                format!("\"{}-{}\"", a.min(b), a.max(b))
            })
            .collect();
        write!(text, ", ports: [{}]", ranges.join(", ")).unwrap();
    }
    if allow && is_name && random.chance(20) {
        text.push_str(", sni: required");
    } else if random.chance(60) {
        write!(text, ", protocol: {}", random.pick(&["tcp", "udp", "any"])).unwrap();
    }
    text.push_str(" }\n");
}
