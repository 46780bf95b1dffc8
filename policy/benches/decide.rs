//! The cost of a decision, by kind of rule and number of rules.
//!
//! `cargo bench -p odyn-policy`. Plain timing: each figure is the median of many batches, since a
//! decision is far shorter than a reading of the clock. The flows of a batch go round over many
//! destinations, so that with 100 000 rules the caches are as cold as they would be.

use std::fmt::Write;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use odyn_policy::{Destination, Flow, Policy, Protocol, load};
use odyn_proto::DnsName;

const BATCHES: usize = 301;
const FLOWS: usize = 4096;

/// A fifth of the rules each: exact names, `**`, globs inside a label, networks, denied names.
fn policy_text(rules: usize) -> String {
    let mut text = String::from("version: v1\negress:\n  allow:\n");
    let mut line = |rule: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "    - {rule}");
    };
    let each = rules / 5;
    for i in 0..each {
        line(format_args!("api{i}.service{}.example.com", i % 97));
        line(format_args!("\"**.zone{i}.example.net\""));
        line(format_args!("\"node-{i}-*.example.org\""));
        let (b, c) = (i / 256 % 256, i % 256);
        line(format_args!("{}.{b}.{c}.0/24", 20 + i / 65536));
    }
    text.push_str("  deny:\n");
    for i in 0..each {
        let _ = writeln!(text, "    - \"**.bad{i}.zone{i}.example.net\"");
    }
    text
}

enum To {
    Name(DnsName),
    Address(IpAddr),
}

fn kinds(rules: usize) -> Vec<(&'static str, bool, Vec<To>)> {
    let each = rules / 5;
    let names = |each: &dyn Fn(usize) -> String| -> Vec<To> {
        (0..FLOWS)
            .map(|i| To::Name(DnsName::parse(&each(i)).expect("a name")))
            .collect()
    };
    // Far apart, so that neighbours do not warm the caches for each other.
    let at = |i: usize| (i * 7919) % each;
    vec![
        (
            "exact name",
            true,
            names(&|i| format!("api{}.service{}.example.com", at(i), at(i) % 97)),
        ),
        (
            "** pattern",
            true,
            names(&|i| format!("a.b.zone{}.example.net", at(i))),
        ),
        (
            "glob in a label",
            true,
            names(&|i| format!("node-{}-x.example.org", at(i))),
        ),
        (
            "CIDR",
            true,
            (0..FLOWS)
                .map(|i| {
                    let n = at(i);
                    let octets = [20 + n / 65536, n / 256 % 256, n % 256, i % 256];
                    let [a, b, c, d] = octets.map(|o| u8::try_from(o).unwrap_or(0));
                    To::Address(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
                })
                .collect(),
        ),
        (
            "denied name",
            false,
            names(&|i| format!("x.bad{}.zone{}.example.net", at(i), at(i))),
        ),
        (
            "name of no rule",
            false,
            names(&|i| format!("a{i}.elsewhere.example")),
        ),
        (
            "address of no rule",
            false,
            (0..FLOWS)
                .map(|i| To::Address(IpAddr::V4(Ipv4Addr::from(0xC000_0200 + i as u32))))
                .collect(),
        ),
    ]
}

/// Median nanoseconds of one decision.
fn measure(policy: &Policy, allowed: bool, to: &[To]) -> f64 {
    let resolved = [
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)),
    ];
    let flows: Vec<Flow<'_>> = to
        .iter()
        .map(|to| Flow {
            destination: match to {
                To::Name(name) => Destination::Name {
                    name,
                    resolved: &resolved,
                },
                To::Address(address) => Destination::Address(*address),
            },
            port: 443,
            protocol: Protocol::Tcp,
        })
        .collect();
    for flow in &flows {
        assert_eq!(policy.decide(flow).is_allow(), allowed, "{flow:?}");
    }
    let mut batches: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let start = Instant::now();
            for flow in &flows {
                let _ = black_box(policy.decide(black_box(flow)));
            }
            start.elapsed().as_secs_f64() * 1e9 / FLOWS as f64
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    batches[BATCHES / 2]
}

fn main() {
    let sizes = [10, 1_000, 100_000];
    let mut rows: Vec<(&str, Vec<f64>)> = Vec::new();
    let mut loads = Vec::new();
    for rules in sizes {
        let text = policy_text(rules);
        let start = Instant::now();
        let loaded = load("bench.yaml", &text);
        loads.push(start.elapsed().as_secs_f64() * 1e3);
        let policy = loaded.policy.expect("the policy has no errors");
        for (i, (kind, allowed, to)) in kinds(rules).into_iter().enumerate() {
            let median = measure(&policy, allowed, &to);
            match rows.get_mut(i) {
                Some((_, medians)) => medians.push(median),
                None => rows.push((kind, vec![median])),
            }
        }
    }
    println!(
        "median ns per decision {:>12} {:>12} {:>12} rules",
        sizes[0], sizes[1], sizes[2]
    );
    for (kind, medians) in rows {
        print!("{kind:22}");
        for median in medians {
            print!(" {median:12.0}");
        }
        println!();
    }
    print!("{:22}", "load, once (ms)");
    for load in loads {
        print!(" {load:12.1}");
    }
    println!();
}
