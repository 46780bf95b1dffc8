//! The index against the naive reference, on policies made of a small
//! vocabulary so that rules and flows meet often.

#![no_main]

use std::fmt::Write as _;
use std::net::IpAddr;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use odyn_policy::{Destination, Flow, Protocol, load};
use odyn_policy_reference::{Reference, ReferenceVerdict};
use odyn_proto::DnsName;

const LABELS: [&str; 6] = ["a", "b", "ab", "api-1", "com", "example"];
const STARS: [&str; 8] = ["*", "**", "a*", "*b", "api-*", "a*b", "*a*", "*-*"];
const NETS: [&str; 15] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.3",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "169.254.169.254",
    "224.0.0.0/3",
    "198.18.0.0/15",
    "'::/0'",
    "'::1'",
    "'64:ff9b::/96'",
    "'fe80::/10'",
    "'fd00::/8'",
    "'fd6f:6479:6e00::/64'",
];
const ADDRESSES: [&str; 14] = [
    "10.1.2.3",
    "10.1.9.9",
    "10.9.9.9",
    "127.0.0.1",
    "169.254.169.254",
    "224.0.0.1",
    "198.18.0.1",
    "203.0.113.1",
    "::1",
    "::ffff:10.1.2.3",
    "64:ff9b::10.1.2.3",
    "fe80::1",
    "fd00:ec2::254",
    "fd6f:6479:6e00::5",
];
const PORTS: [&str; 5] = ["80", "443", "1-65535", "80-442", "8000"];
const FLOW_PORTS: [u16; 7] = [0, 1, 80, 442, 443, 8000, 65_535];

fn labels(u: &mut Unstructured<'_>, stars: bool) -> Result<String> {
    let mut parts: Vec<&str> = Vec::new();
    for _ in 0..u.int_in_range(1..=4)? {
        let star = stars && u.ratio(1, 3)?;
        parts.push(if star {
            u.choose(&STARS)?
        } else {
            u.choose(&LABELS)?
        });
    }
    Ok(parts.join("."))
}

fn rule(u: &mut Unstructured<'_>, text: &mut String) -> Result<()> {
    let target = match u.int_in_range(0..=5)? {
        0 | 1 => (*u.choose(&NETS)?).to_owned(),
        2 => "host".to_owned(),
        _ => format!("'{}'", labels(u, true)?),
    };
    if u.ratio(1, 2)? {
        let _ = writeln!(text, "    - {target}");
        return Ok(());
    }
    let _ = writeln!(text, "    - to: {target}");
    if u.ratio(2, 3)? {
        let (first, second) = (u.choose(&PORTS)?, u.choose(&PORTS)?);
        let _ = writeln!(text, "      ports: ['{first}', '{second}']");
    }
    if u.ratio(1, 2)? {
        let _ = writeln!(
            text,
            "      protocol: {}",
            u.choose(&["tcp", "udp", "any"])?
        );
    }
    Ok(())
}

fn policy(u: &mut Unstructured<'_>) -> Result<String> {
    let mode = u.choose(&["enforce", "report"])?;
    let mut text = format!("version: v1\negress:\n  mode: {mode}\n");
    for list in ["allow", "deny"] {
        let count = u.int_in_range(0..=6)?;
        if count > 0 {
            let _ = writeln!(text, "  {list}:");
        }
        for _ in 0..count {
            rule(u, &mut text)?;
        }
    }
    Ok(text)
}

fn address(u: &mut Unstructured<'_>) -> Result<IpAddr> {
    if u.ratio(1, 4)? {
        return Ok(IpAddr::from(u.arbitrary::<[u8; 16]>()?));
    }
    Ok(u.choose(&ADDRESSES)?.parse().expect("an address"))
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let text = policy(u)?;
    // Some are rightly refused, such as `**` twice in a pattern.
    let Some(policy) = load("fuzz.yaml", &text).policy else {
        return Ok(());
    };
    let reference = Reference::new(&policy);
    while !u.is_empty() {
        let Ok(name) = DnsName::parse(&labels(u, false)?) else {
            continue;
        };
        let mut resolved = Vec::new();
        for _ in 0..u.int_in_range(0..=3)? {
            resolved.push(address(u)?);
        }
        let destination = match u.int_in_range(0..=6)? {
            0 => Destination::Host,
            1..=2 => Destination::Address(address(u)?),
            _ => Destination::Name {
                name: &name,
                resolved: &resolved,
            },
        };
        let flow = Flow {
            destination,
            port: *u.choose(&FLOW_PORTS)?,
            protocol: *u.choose(&[Protocol::Tcp, Protocol::Udp])?,
        };
        let fast = ReferenceVerdict::from(&policy.decide(&flow));
        assert_eq!(fast, reference.decide(&flow), "{flow:?}\n{text}");
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    // The end of the bytes is the end of the story, not a failure.
    let _ = run(&mut Unstructured::new(bytes));
});
