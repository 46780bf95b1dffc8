//! Decisions case by case: the promises of the documentation as tables.

use std::net::IpAddr;

use odyn_policy::{
    Condition, Decision, Destination, Flow, NameDecision, PermitTarget, Policy, Protocol, Reason,
    load,
};
use odyn_proto::DnsName;

fn policy(egress: &str) -> Policy {
    let text = format!("version: v1\negress:\n{egress}");
    let loaded = load("p.yaml", &text);
    match loaded.policy {
        Some(policy) => policy,
        None => panic!("{text}{:#?}", loaded.diagnostics),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `name=address,address:port/protocol`, `address:port/protocol`, `host:port/protocol`.
fn decide(policy: &Policy, flow: &str) -> Decision {
    let (rest, protocol) = flow.rsplit_once('/').unwrap();
    let (rest, port) = rest.rsplit_once(':').unwrap();
    let protocol = if protocol == "tcp" {
        Protocol::Tcp
    } else {
        Protocol::Udp
    };
    let port = port.parse().unwrap();
    if let Some((name, addresses)) = rest.split_once('=') {
        let name = DnsName::parse(name).unwrap();
        let list = addresses.split(',').filter(|a| !a.is_empty());
        let resolved: Vec<IpAddr> = list.map(ip).collect();
        let destination = Destination::Name {
            name: &name,
            resolved: &resolved,
        };
        return policy.decide(&Flow {
            destination,
            port,
            protocol,
        });
    }
    let destination = match rest {
        "host" => Destination::Host,
        address => Destination::Address(ip(address)),
    };
    policy.decide(&Flow {
        destination,
        port,
        protocol,
    })
}

/// `allow LINE` or `reason LINE`; line 0 when no rule is named. Line 4 is the first rule's.
fn outcome(decision: &Decision) -> String {
    match decision {
        Decision::Allow(permit) => match (permit.rule(), permit.report()) {
            (Some(rule), None) => format!("allow {}", rule.line()),
            (None, Some(denial)) => format!("report {}", denial.reason),
            other => panic!("a permit with {other:?}"),
        },
        Decision::Deny(denial) => {
            let line = denial.rule.as_ref().map_or(0, odyn_policy::RuleRef::line);
            format!("{} {line}", denial.reason)
        }
    }
}

fn table(egress: &str, cases: &[(&str, &str)]) {
    let policy = policy(egress);
    for (flow, wanted) in cases {
        assert_eq!(
            outcome(&decide(&policy, flow)),
            *wanted,
            "{flow} under\n{egress}"
        );
    }
}

#[test]
fn names_and_patterns() {
    table(
        "  allow:
    - api.stripe.com
    - '*.one.example'
    - '**.many.example'
    - 'api-*.glob.example'
    - 'x.*.odd.example'
    - 'left.**.example.net'
",
        &[
            ("api.stripe.com=203.0.113.1:443/tcp", "allow 4"),
            ("api.stripe.com=203.0.113.1:53/udp", "allow 4"),
            ("API.Stripe.COM.=203.0.113.1:443/tcp", "allow 4"),
            ("x.api.stripe.com=203.0.113.1:443/tcp", "no-rule 0"),
            ("stripe.com=203.0.113.1:443/tcp", "no-rule 0"),
            ("a.one.example=203.0.113.1:443/tcp", "allow 5"),
            ("a.b.one.example=203.0.113.1:443/tcp", "no-rule 0"),
            ("one.example=203.0.113.1:443/tcp", "no-rule 0"),
            ("a.many.example=203.0.113.1:443/tcp", "allow 6"),
            ("a.b.many.example=203.0.113.1:443/tcp", "allow 6"),
            ("many.example=203.0.113.1:443/tcp", "no-rule 0"),
            ("xmany.example=203.0.113.1:443/tcp", "no-rule 0"),
            ("api-1.glob.example=203.0.113.1:443/tcp", "allow 7"),
            ("api1.glob.example=203.0.113.1:443/tcp", "no-rule 0"),
            ("x.y.odd.example=203.0.113.1:443/tcp", "allow 8"),
            ("x.y.z.odd.example=203.0.113.1:443/tcp", "no-rule 0"),
            ("left.a.b.example.net=203.0.113.1:443/tcp", "allow 9"),
            ("right.a.b.example.net=203.0.113.1:443/tcp", "no-rule 0"),
        ],
    );
}

#[test]
fn ports_and_protocols() {
    table(
        "  allow:
    - { to: a.example, ports: [5432, '8200-8201'], protocol: tcp }
    - { to: 10.0.0.0/8, ports: [53], protocol: udp }
    - { to: host, ports: [80] }
",
        &[
            ("a.example=203.0.113.1:5432/tcp", "allow 4"),
            ("a.example=203.0.113.1:8200/tcp", "allow 4"),
            ("a.example=203.0.113.1:8202/tcp", "port 4"),
            ("a.example=203.0.113.1:5432/udp", "protocol 4"),
            ("a.example=203.0.113.1:9/udp", "port 4"),
            ("a.example=203.0.113.1:0/tcp", "port 0"),
            ("10.1.1.1:53/udp", "allow 5"),
            ("10.1.1.1:53/tcp", "protocol 5"),
            ("10.1.1.1:54/udp", "port 5"),
            ("host:80/tcp", "allow 6"),
            ("host:80/udp", "allow 6"),
            ("host:81/tcp", "port 6"),
            ("host:0/tcp", "port 0"),
        ],
    );
}

#[test]
fn deny_beats_allow() {
    table(
        "  allow:
    - '**.example'
    - 10.0.0.0/8
    - host
  deny:
    - '**.bad.example'
    - { to: half.example, ports: [80] }
    - 10.9.0.0/16
    - { to: 10.8.0.0/16, protocol: udp }
    - { to: host, ports: [22] }
",
        &[
            ("a.example=203.0.113.1:1/tcp", "allow 4"),
            ("a.bad.example=203.0.113.1:1/tcp", "deny-rule 8"),
            ("bad.example=203.0.113.1:1/tcp", "allow 4"),
            ("half.example=203.0.113.1:80/tcp", "deny-rule 9"),
            ("half.example=203.0.113.1:81/tcp", "allow 4"),
            ("10.1.0.1:1/tcp", "allow 5"),
            ("10.9.0.1:1/tcp", "deny-rule 10"),
            ("10.8.0.1:1/udp", "deny-rule 11"),
            ("10.8.0.1:1/tcp", "allow 5"),
            // Deny rules for addresses apply to what names resolve to.
            ("a.example=10.9.0.1:1/tcp", "deny-rule 10"),
            ("a.example=10.9.0.1,203.0.113.1:1/tcp", "allow 4"),
            ("a.example=10.8.0.1:1/udp", "deny-rule 11"),
            ("a.example=::ffff:10.9.0.1:1/tcp", "deny-rule 10"),
            ("a.example=64:ff9b::10.9.0.1:1/tcp", "deny-rule 10"),
            ("a.example=2002:a09:1::1:1/tcp", "deny-rule 10"),
            ("host:22/tcp", "deny-rule 12"),
            ("host:23/tcp", "allow 6"),
        ],
    );
}

#[test]
fn names_and_addresses_are_apart() {
    table(
        "  allow:
    - a.example
    - 10.0.0.0/8
",
        &[
            ("a.example=203.0.113.1:1/tcp", "allow 4"),
            ("203.0.113.1:1/tcp", "no-rule 0"),
            ("10.0.0.1:1/tcp", "allow 5"),
            ("::ffff:10.0.0.1:1/tcp", "allow 5"),
            ("b.example=10.0.0.1:1/tcp", "no-rule 0"),
            ("a.example=:1/tcp", "no-address 0"),
            ("host:1/tcp", "no-rule 0"),
        ],
    );
}

#[test]
fn special_addresses_stay_closed_under_wide_rules() {
    let cases = [
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "2002:7f00:1::1",
    ];
    let policy = policy("  allow: ['**', 0.0.0.0/0, '::/0', 126.0.0.0/7, 'fd00::/8']\n");
    for address in cases {
        for flow in [
            format!("{address}:80/tcp"),
            format!("a.example={address}:80/tcp"),
        ] {
            let said = outcome(&decide(&policy, &flow));
            assert!(said.starts_with("special-address"), "{flow}: {said}");
        }
        let name = DnsName::parse("a.example").unwrap();
        let refused = policy.decide_resolved(&name, ip(address)).unwrap_err();
        assert_eq!(refused.reason, Reason::SpecialAddress, "{address}");
    }
    for address in [
        "203.0.113.1",
        "2001:db8::1",
        "64:ff9b::203.0.113.1",
        "192.168.0.1",
    ] {
        assert!(
            decide(&policy, &format!("{address}:80/tcp")).is_allow(),
            "{address}"
        );
    }
}

#[test]
fn special_addresses_open_from_inside_their_block() {
    table(
        "  allow:
    - '**'
    - 127.0.0.0/8
    - { to: 169.254.169.254, ports: [80], protocol: tcp }
    - fe80::/10
    - 255.0.0.0/8
    - 198.18.0.0/15
",
        &[
            ("127.0.0.1:80/tcp", "allow 5"),
            ("a.example=127.0.0.1:80/tcp", "allow 4"),
            ("::ffff:127.0.0.1:80/tcp", "allow 5"),
            ("a.example=169.254.169.254:80/tcp", "allow 4"),
            ("a.example=169.254.169.254:81/tcp", "special-address 0"),
            ("169.254.169.254:80/tcp", "allow 6"),
            ("169.254.169.253:80/tcp", "special-address 0"),
            ("fe80::1:80/tcp", "allow 7"),
            // The broadcast address is a block of its own inside of 240.0.0.0/4.
            ("255.0.0.1:80/tcp", "allow 8"),
            ("255.255.255.255:80/tcp", "special-address 8"),
            // No rule opens synthetic addresses.
            ("198.18.0.1:80/tcp", "unknown-synthetic 0"),
            ("a.example=198.18.0.1:80/tcp", "special-address 9"),
            ("fd6f:6479:6e00::1:80/tcp", "unknown-synthetic 0"),
        ],
    );
}

#[test]
fn host_and_localhost() {
    table(
        "  allow:
    - '**'
    - localhost
    - { to: host, ports: [80] }
",
        &[
            ("host=203.0.113.1:80/tcp", "allow 6"),
            ("host=:80/tcp", "allow 6"),
            ("host=203.0.113.1:81/tcp", "port 6"),
            ("a.host=203.0.113.1:81/tcp", "allow 4"),
            ("localhost=203.0.113.1:80/tcp", "special-name 0"),
            ("a.localhost=203.0.113.1:80/tcp", "special-name 0"),
        ],
    );
    // Patterns match names, and `host` is not one.
    table(
        "  allow: ['**', '*']\n",
        &[("host:80/tcp", "no-rule 0"), ("host=:80/tcp", "no-rule 0")],
    );
    let policy = policy("  allow: [host]\n");
    let Decision::Allow(permit) = decide(&policy, "host=203.0.113.1:80/tcp") else {
        panic!("host is denied");
    };
    assert_eq!(permit.target(), PermitTarget::Host);
}

#[test]
fn the_most_specific_rule_is_named() {
    table(
        "  allow:
    - '**'
    - '**.b.example'
    - '*.b.example'
    - 'a*.b.example'
    - ab.b.example
    - ab.b.example
    - 10.0.0.0/8
    - 10.0.0.0/16
",
        &[
            ("ab.b.example=203.0.113.1:1/tcp", "allow 8"),
            ("ac.b.example=203.0.113.1:1/tcp", "allow 7"),
            ("c.b.example=203.0.113.1:1/tcp", "allow 6"),
            ("c.c.b.example=203.0.113.1:1/tcp", "allow 5"),
            ("c.example=203.0.113.1:1/tcp", "allow 4"),
            ("10.0.0.1:1/tcp", "allow 11"),
            ("10.1.0.1:1/tcp", "allow 10"),
        ],
    );
}

#[test]
fn sni_is_what_the_named_rule_says() {
    let policy = policy(
        "  allow:
    - { to: '**.example', protocol: tcp }
    - { to: a.example, sni: required }
    - { to: b.example, sni: required, ports: [443] }
",
    );
    for (flow, wanted) in [
        ("a.example=203.0.113.1:443/tcp", true),
        ("b.example=203.0.113.1:443/tcp", true),
        ("b.example=203.0.113.1:80/tcp", false),
        ("c.example=203.0.113.1:443/tcp", false),
    ] {
        match decide(&policy, flow) {
            Decision::Allow(permit) => {
                let required = permit.conditions().contains(&Condition::Sni);
                assert_eq!(required, wanted, "{flow}");
            }
            Decision::Deny(denial) => panic!("{flow}: {denial}"),
        }
    }
    assert_eq!(
        outcome(&decide(&policy, "a.example=203.0.113.1:443/udp")),
        "protocol 5"
    );
}

#[test]
fn report_lets_pass_what_rules_deny_and_nothing_else() {
    table(
        "  mode: report
  allow:
    - a.example
    - 10.0.0.0/8
  deny:
    - 10.9.0.0/16
    - 127.0.0.0/8
",
        &[
            ("a.example=203.0.113.1:1/tcp", "allow 5"),
            ("b.example=203.0.113.1:1/tcp", "report no-rule"),
            ("a.example=10.9.0.1:1/tcp", "report deny-rule"),
            ("10.9.0.1:1/tcp", "report deny-rule"),
            ("203.0.113.1:1/tcp", "report no-rule"),
            ("host:1/tcp", "report no-rule"),
            ("127.0.0.1:1/tcp", "deny-rule 9"),
            ("b.example=127.0.0.1:1/tcp", "deny-rule 9"),
            ("169.254.169.254:1/tcp", "special-address 0"),
            ("b.example=169.254.169.254:1/tcp", "special-address 0"),
            ("198.18.0.1:1/tcp", "unknown-synthetic 0"),
            ("localhost=203.0.113.1:1/tcp", "special-name 0"),
            ("b.example=:1/tcp", "no-address 0"),
            ("a.example=203.0.113.1:0/tcp", "port 0"),
        ],
    );
}

#[test]
fn a_permit_holds_the_admissible_addresses_in_order() {
    let policy = policy("  allow: [a.example]\n  deny: [10.0.0.0/8]\n");
    let name = DnsName::parse("a.example").unwrap();
    let resolved = [
        "203.0.113.2",
        "127.0.0.1",
        "203.0.113.1",
        "10.1.1.1",
        "::ffff:203.0.113.3",
    ]
    .map(ip);
    let addresses = |resolved: &[IpAddr]| {
        let destination = Destination::Name {
            name: &name,
            resolved,
        };
        match policy.decide(&Flow {
            destination,
            port: 7,
            protocol: Protocol::Udp,
        }) {
            Decision::Allow(permit) => {
                assert_eq!((permit.port(), permit.protocol()), (7, Protocol::Udp));
                match permit.target() {
                    PermitTarget::Addresses(addresses) => addresses.to_vec(),
                    PermitTarget::Host => panic!("not the host"),
                }
            }
            Decision::Deny(denial) => panic!("{denial}"),
        }
    };
    assert_eq!(
        addresses(&resolved),
        ["203.0.113.2", "203.0.113.1", "203.0.113.3"].map(ip)
    );
    // As many as fit; refused ones do not count.
    let many: Vec<IpAddr> = (0..40_u8)
        .flat_map(|i| [IpAddr::from([10, 0, 0, i]), IpAddr::from([203, 0, 113, i])])
        .collect();
    let first: Vec<IpAddr> = (0..16_u8).map(|i| IpAddr::from([203, 0, 113, i])).collect();
    assert_eq!(addresses(&many), first);
}

fn name_outcome(policy: &Policy, name: &str) -> String {
    match policy.decide_name(&DnsName::parse(name).unwrap()) {
        NameDecision::Allow(permit) => match (permit.rule(), permit.report()) {
            (Some(rule), None) => format!("allow {}", rule.line()),
            (None, Some(denial)) => format!("report {}", denial.reason),
            other => panic!("a permit with {other:?}"),
        },
        NameDecision::Deny(denial) => {
            let line = denial.rule.as_ref().map_or(0, odyn_policy::RuleRef::line);
            format!("{} {line}", denial.reason)
        }
    }
}

#[test]
fn names_may_be_asked_when_some_port_is_open() {
    let policy = policy(
        "  allow:
    - '**.example'
    - { to: one.test, ports: [443], protocol: tcp }
    - { to: two.test, ports: ['1-10'] }
    - host
  deny:
    - '**.bad.example'
    - { to: half.example, ports: [80] }
    - { to: tcp.example, protocol: tcp }
    - { to: udp.example, protocol: udp }
    - { to: both.example, protocol: tcp }
    - { to: both.example, protocol: udp }
    - { to: one.test, ports: ['400-500'] }
    - { to: two.test, ports: ['1-4', '6-20'] }
    - { to: pieces.example, ports: ['1-1000', '1000-65535'] }
",
    );
    for (name, wanted, denied) in [
        ("a.example", "allow 4", false),
        ("a.bad.example", "deny-rule 9", true),
        ("half.example", "allow 4", false),
        ("tcp.example", "allow 4", false),
        ("udp.example", "allow 4", false),
        ("both.example", "deny-rule 13", true),
        ("pieces.example", "deny-rule 17", true),
        ("one.test", "deny-rule 15", false),
        ("two.test", "allow 6", false),
        ("three.test", "no-rule 0", false),
        ("host", "allow 7", false),
        ("localhost", "special-name 0", false),
    ] {
        assert_eq!(name_outcome(&policy, name), wanted, "{name}");
        let parsed = DnsName::parse(name).unwrap();
        assert_eq!(
            policy.denies_name(&parsed).is_some(),
            denied,
            "denies_name {name}"
        );
    }
}

#[test]
fn an_address_is_refused_for_names_when_nothing_is_open_there() {
    let policy = policy(
        "  allow: ['**', 127.0.0.0/8]
  deny:
    - 10.0.0.0/8
    - { to: 11.0.0.0/8, protocol: tcp }
    - { to: 11.1.0.0/16, protocol: udp }
    - { to: 12.0.0.0/8, ports: [443] }
",
    );
    let name = DnsName::parse("a.example").unwrap();
    for (address, wanted) in [
        ("203.0.113.1", None),
        ("10.1.2.3", Some(Reason::DenyRule)),
        ("::ffff:10.1.2.3", Some(Reason::DenyRule)),
        ("64:ff9b::10.1.2.3", Some(Reason::DenyRule)),
        ("11.0.0.1", None),
        ("11.1.0.1", Some(Reason::DenyRule)),
        ("12.0.0.1", None),
        ("127.0.0.1", None),
        ("169.254.169.254", Some(Reason::SpecialAddress)),
        ("198.18.0.1", Some(Reason::SpecialAddress)),
    ] {
        let found = policy.decide_resolved(&name, ip(address)).err();
        assert_eq!(found.map(|denial| denial.reason), wanted, "{address}");
    }
}

#[test]
fn nothing_is_allowed_by_nothing() {
    let policy = policy("  allow: []\n");
    for flow in [
        "a.example=203.0.113.1:443/tcp",
        "203.0.113.1:443/tcp",
        "2001:db8::1:53/udp",
        "host:1/tcp",
    ] {
        assert_eq!(outcome(&decide(&policy, flow)), "no-rule 0", "{flow}");
    }
}

#[test]
fn explanations_say_the_same_as_decisions() {
    let policy = policy("  allow: ['*.example', 127.0.0.1]\n  deny: [10.0.0.0/8]\n");
    for flow in [
        "a.example=203.0.113.1:443/tcp",
        "a.example=10.0.0.1,127.0.0.1:443/tcp",
        "a.b.example=203.0.113.1:443/tcp",
        "127.0.0.1:443/tcp",
        "127.0.0.2:443/tcp",
        "host:443/tcp",
    ] {
        let decision = decide(&policy, flow);
        let (rest, _) = flow.rsplit_once('/').unwrap();
        let (rest, port) = rest.rsplit_once(':').unwrap();
        let (name, resolved) = rest.split_once('=').unwrap_or((rest, ""));
        let resolved: Vec<IpAddr> = resolved
            .split(',')
            .filter(|a| !a.is_empty())
            .map(ip)
            .collect();
        let parsed = DnsName::parse(name);
        let destination = match (&parsed, name) {
            (_, "host") => Destination::Host,
            (Ok(name), _) => Destination::Name {
                name,
                resolved: &resolved,
            },
            (Err(_), address) => Destination::Address(ip(address)),
        };
        let flow = Flow {
            destination,
            port: port.parse().unwrap(),
            protocol: Protocol::Tcp,
        };
        let explanation = policy.explain(&flow);
        assert_eq!(
            explanation.verdict.is_allow(),
            decision.is_allow(),
            "{flow:?}"
        );
        assert!(!explanation.stages.is_empty());
    }
}
